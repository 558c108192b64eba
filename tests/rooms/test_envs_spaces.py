"""Observations of several parts: how they are described, stepped, and compared with what an agent reads."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from kdcli.envs.make import check_fits, make, spaces_of, to_action, to_space
from kdcli.envs.toys import Reach
from kdcli.envs.vector import Vector
from kdcli.errors import UsageError
from kdcli.rollouts.random_policy import random_actions
from kdcli.spec import MASK, OBS, Dict, Discrete, EnvSpec, MultiBinary, Space, box, space_from_json, space_to_json

BOTH, ALLOWED = EnvSpec("kdcli/Both-v0"), EnvSpec("kdcli/Allowed-v0", wrappers=("action-mask",))
DOES = Discrete(4)
KINDS = spaces.Dict(
    {
        "flags": spaces.MultiBinary(3),
        "choice": spaces.Discrete(5),
        "levers": spaces.MultiDiscrete([2, 3]),
        "image": spaces.Box(0, 255, (4, 4, 1), np.uint8),
        "deep": spaces.Box(-1.0, 1.0, (2,), np.float64),
    }
)


class Kinds(gymnasium.Env):
    """Observes a sample of KINDS."""

    def __init__(self, space: spaces.Space = KINDS) -> None:
        self.observation_space, self.action_space = deepcopy(space), spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 1.0, False, False, {}


def test_a_dict_is_described_in_its_order() -> None:
    """Law: the parts keep gymnasium's order and dtypes, an action mask comes last, and JSON brings them back."""
    found = to_space(KINDS)
    assert isinstance(found, Dict)
    assert list(found.spaces) == ["choice", "deep", "flags", "image", "levers"]
    assert [part.dtype for part in found.spaces.values()] == ["int64", "float64", "int8", "uint8", "int64"]
    masked = to_space(spaces.Dict({"action_mask": spaces.Box(0, 1, (3,), np.int8), "z": spaces.Discrete(2)}))
    assert isinstance(masked, Dict)
    assert list(masked.spaces) == ["z", MASK]
    assert masked.spaces[MASK] == MultiBinary(3)
    assert str(space_from_json(space_to_json(found))) == str(found)


def test_slots_of_a_dict_are_rows_of_a_structured_array() -> None:
    """Law: each part of what a slot observes is in its row and field, to the bit, after reset and after a step."""
    vector, alone = Vector(EnvSpec(f"{__name__}:Kinds"), 3), Kinds()
    assert vector.obs.dtype == vector.observation.dtype
    for slot in (2, 0):
        vector.reset(slot, slot)
        seen = alone.reset(seed=slot)[0]
        for _ in range(3):
            for name in seen:
                np.testing.assert_array_equal(vector.obs[slot][name], seen[name])
            vector.step([slot], np.array([1]))
            seen = alone.step(1)[0]
    assert (vector.obs[1] == np.zeros((), vector.obs.dtype)).all()


def test_a_batch_of_rows_is_a_copy() -> None:
    """Law: rows taken from a vector keep what was seen while the vector goes on."""
    vector = Vector(BOTH, 2)
    vector.reset(0, 0)
    kept = vector.obs[np.array([0])]
    before = kept["vector"].copy()
    vector.step([0], np.array([0]))
    assert (kept["vector"] == before).all()
    assert (vector.obs["vector"][0] != before[0]).any()


@pytest.mark.parametrize(
    "space",
    [
        spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Dict({"c": spaces.Discrete(3)})}),
        spaces.Dict({"a": spaces.Tuple([spaces.Discrete(2)])}),
        spaces.Tuple([spaces.Discrete(2), spaces.Discrete(3)]),
        spaces.MultiDiscrete([[2, 3], [2, 2]]),
    ],
    ids=["nested", "tuple inside", "tuple", "grid"],
)
def test_nested_observations_are_refused_with_a_way_out(space: spaces.Space) -> None:
    """Law: what has no flat names is refused, and the wrapper flatten, which the error names, makes it one vector."""
    with pytest.raises(UsageError) as error:
        to_space(space)
    assert "--wrapper flatten" in error.value.fix
    env = Kinds(space)
    assert str(to_space(gymnasium.wrappers.FlattenObservation(env).observation_space)).startswith("Box(")


@pytest.mark.parametrize("space", [KINDS, spaces.Tuple([spaces.Discrete(2)]), spaces.Text(3)], ids=str)
def test_actions_are_one_part(space: spaces.Space) -> None:
    """Law: an action space of several parts is refused."""
    with pytest.raises(UsageError, match="is not handled"):
        to_action(space)


class Crowded(Reach):
    """Has as many actions as nobody should."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = spaces.Dict({"a": spaces.Discrete(2)})  # type: ignore[assignment]


def test_spaces_of_closes_and_refuses() -> None:
    """Law: the spaces of an env are told without leaving it open, or refused."""
    with pytest.raises(UsageError, match="is not handled"):
        spaces_of(EnvSpec(f"{__name__}:Crowded"))
    assert [str(space) for space in spaces_of(ALLOWED)] == [
        "Dict(obs: Box(4,) float32, action_mask: MultiBinary(4))",
        "Discrete(4)",
    ]


IMAGE, VECTOR = box((36, 36, 1), 0, 255, "uint8"), box((2,))
PAIR = Dict({"image": IMAGE, "vector": VECTOR})


@pytest.mark.parametrize(
    ("env", "agent", "why", "fix"),
    [
        (PAIR, Dict({"image": IMAGE, "vector": box((3,))}), "vector is Box(2,)", "--wrapper time-feature"),
        (PAIR, Dict({"image": IMAGE}), "vector besides", "--env"),
        (PAIR, Dict({"image": IMAGE, "vector": VECTOR, "goal": VECTOR}), "does not give goal", "--env"),
        (PAIR, Dict({**PAIR.spaces, MASK: MultiBinary(4)}), "which actions are allowed", "--wrapper action-mask"),
        (VECTOR, Dict({OBS: VECTOR, MASK: MultiBinary(4)}), "which actions are allowed", "--wrapper action-mask"),
        (PAIR, box((1298,)), "one vector", "--wrapper flatten"),
        (PAIR, Dict({"image": box((1, 36, 36)), "vector": VECTOR}), "channels of images first", "channels-first"),
        (box((1, 36, 36)), IMAGE, "channels of images last", "channels-last"),
        (IMAGE, box((36, 36, 4)), "4 frames", "--wrapper frame-stack:4"),
        (box((1, 36, 36)), box((4, 36, 36)), "4 frames", "--wrapper frame-stack:4"),
        (box((210, 160, 3)), box((84, 84, 4)), "Atari", "--wrapper atari --wrapper frame-stack:4"),
        (box((210, 160, 3)), box((4, 84, 84)), "Atari", "frame-stack:4 --wrapper channels-first"),
        (box((96, 96, 3)), box((64, 64, 2)), "a wrapper is missing", "--wrapper"),
    ],
)
def test_what_differs_is_told(env: Space, agent: Space, why: str, fix: str) -> None:
    """Law: an agent that does not fit is told which part differs, and the option that mends it where one does."""
    with pytest.raises(UsageError) as error:
        check_fits(BOTH, (env, DOES), (agent, DOES))
    assert why in error.value.why
    assert fix in error.value.fix


def test_the_advice_mends_what_it_is_about() -> None:
    """Law: with the wrapper that the error names, the agent fits."""
    agent = (Dict({OBS: box((4,)), MASK: MultiBinary(4)}), DOES)
    with pytest.raises(UsageError) as error:
        check_fits(EnvSpec("kdcli/Allowed-v0"), spaces_of(EnvSpec("kdcli/Allowed-v0")), agent)
    name = error.value.fix.removeprefix("--wrapper ")
    check_fits(BOTH, spaces_of(EnvSpec("kdcli/Allowed-v0", wrappers=(name,))), agent)


def test_chance_plays_by_the_rules() -> None:
    """Law: random play of an env that observes its mask takes allowed actions only, and each of them."""
    vector, rng = Vector(ALLOWED, 4), np.random.default_rng(0)
    for slot in range(4):
        vector.reset(slot, slot)
    seen = set()
    for _ in range(19):
        action = random_actions(vector.action, vector.obs, rng)
        assert (vector.obs[MASK][np.arange(4), action] == 1).all()
        assert (vector.step(range(4), action)[0] >= 0).all()
        seen |= set(action.tolist())
    assert seen == {0, 1, 2, 3}


@pytest.mark.parametrize(
    "name", ["See", "Both", "Remember", "Allowed", "Levers", "Switches", "Crowd", "Choose", "Reach"]
)
@pytest.mark.filterwarnings("ignore:.*infinity")  # Reach has no bounds
def test_toys_are_environments(name: str) -> None:
    """Law: the toys pass gymnasium's own checks."""
    from gymnasium.utils.env_checker import check_env

    check_env(make(EnvSpec(f"kdcli/{name}-v0")).unwrapped, skip_render_check=True)


RIGHT = {
    "See": lambda obs: (
        int(np.unravel_index(obs[..., 0].argmax(), (36, 36))[0] >= 18) * 2
        + int(np.unravel_index(obs[..., 0].argmax(), (36, 36))[1] >= 18)
    ),
    "Both": lambda obs: int(obs["image"][18:].max() == 255) * 2 + int(obs["vector"][0] > obs["vector"][1]),
    "Levers": lambda obs: np.array([obs[:3].argmax(), obs[3:].argmax()]),
    "Switches": lambda obs: (obs > 0).astype(np.int8),
    "Crowd": lambda obs: int(obs[obs[:, 1].argmax(), 0] > 0),
}


@pytest.mark.parametrize("name", RIGHT)
def test_toys_reward_what_their_docstring_says(name: str) -> None:
    """Law: the policy that a toy describes earns a reward of 1 at every step."""
    env = make(EnvSpec(f"kdcli/{name}-v0"))
    for seed in range(3):
        obs, over = env.reset(seed=seed)[0], False
        while not over:
            obs, reward, _, over, _ = env.step(RIGHT[name](obs))
            assert reward == pytest.approx(1)


def test_remembering_pays() -> None:
    """Law: the signal is shown at the beginning only, and repeating it is right all along."""
    env = make(EnvSpec("kdcli/Remember-v0"))
    for seed in range(6):
        obs, over = env.reset(seed=seed)[0], False
        assert obs[1] == 1
        signal = int(obs[0] > 0)
        while not over:
            obs, reward, _, over, _ = env.step(signal)
            assert reward == 1
            assert (obs == 0).all()
