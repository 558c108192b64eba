"""Each wrapper against the one it is named after, step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation, GrayscaleObservation, RescaleAction, ResizeObservation
from sb3_contrib.common.wrappers import TimeFeatureWrapper
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecTransposeImage

from kdcli.envs import WRAPPERS
from kdcli.envs.make import make, spaces_of
from kdcli.envs.wrappers import wrap
from kdcli.envs.wrappers.parts import parts
from kdcli.errors import UsageError
from kdcli.spec import MASK, OBS, EnvSpec

SEE, BOTH, REACH, ALLOWED = (f"kdcli/{name}-v0" for name in ("See", "Both", "Reach", "Allowed"))


def same(a: Any, b: Any) -> None:
    """Equal observations, to the bit and the dtype; by part."""
    if isinstance(b, dict):
        assert list(a) == list(b)
        for name in b:
            same(a[name], b[name])
        return
    np.testing.assert_array_equal(a, b)
    assert np.asarray(a).dtype == np.asarray(b).dtype


def play_both(ours: gymnasium.Env, theirs: gymnasium.Env, episodes: int = 2, steps: int = 30) -> None:
    """The same seeds and actions through both: the same spaces, observations, rewards and ends."""
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    ours.action_space.seed(0)
    for seed in range(episodes):
        same(ours.reset(seed=seed)[0], theirs.reset(seed=seed)[0])
        for _ in range(steps):
            action = ours.action_space.sample()
            (obs, *outcome, _), (their_obs, *their_outcome, _) = ours.step(action), theirs.step(action)
            same(obs, their_obs)
            assert outcome == their_outcome
            if outcome[1] or outcome[2]:
                break


class Bounded(gymnasium.Env):
    """A goal env: Dict{achieved, observation}, whose numbers are drawn."""

    def __init__(self) -> None:
        self.observation_space = spaces.Dict(
            {"observation": spaces.Box(-1, 1, (3,)), "achieved_goal": spaces.Box(-2, 2, (2,))}
        )
        self.action_space = spaces.Box(-1.0, 1.0, (2,))

    def _seen(self) -> dict[str, np.ndarray]:
        drawn = self.np_random.uniform(-1, 1, 5).astype(np.float32)
        return {"observation": drawn[:3], "achieved_goal": drawn[3:]}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self._seen(), 0.0, False, False, {}


THEIRS: dict[str, tuple[str, Callable[[gymnasium.Env], gymnasium.Env]]] = {
    "time-feature": ("Pendulum-v1", TimeFeatureWrapper),
    "time-feature:test=true": ("CartPole-v1", lambda e: TimeFeatureWrapper(e, test_mode=True)),
    "flatten": (BOTH, gymnasium.wrappers.FlattenObservation),
    "rescale-action": ("Pendulum-v1", lambda e: RescaleAction(e, np.float32(-1), np.float32(1))),
    "rescale-action:low=0,high=3": ("Pendulum-v1", lambda e: RescaleAction(e, np.float32(0), np.float32(3))),
    "clip-action": ("Pendulum-v1", gymnasium.wrappers.ClipAction),
    "time-limit:7": ("CartPole-v1", lambda e: gymnasium.wrappers.TimeLimit(e, 7)),
    "sticky:0.5": ("CartPole-v1", lambda e: gymnasium.wrappers.StickyAction(e, 0.5)),
    "frame-stack:3,axis=new,pad=first": ("CartPole-v1", lambda e: FrameStackObservation(e, 3)),
    "frame-stack:2,axis=new": (BOTH, lambda e: FrameStackObservation(e, 2, padding_type="zero")),
    "grayscale": ("CarRacing-v3", lambda e: GrayscaleObservation(e, keep_dim=True)),
    "grayscale:flat=true": ("CarRacing-v3", GrayscaleObservation),
    "resize:64x48": ("CarRacing-v3", lambda e: ResizeObservation(e, (64, 48))),
    "resize:12x20": (SEE, lambda e: ResizeObservation(e, (12, 20))),
}


@pytest.mark.parametrize("text", THEIRS)
def test_a_wrapper_equals_the_one_it_is_named_after(text: str) -> None:
    """Law: a wrapper of ours and gymnasium's or sb3-contrib's give equal spaces, observations, rewards and ends."""
    env_id, theirs = THEIRS[text]
    bare = EnvSpec(env_id)
    play_both(wrap(make(bare), text), theirs(make(bare)), steps=8 if env_id.startswith("Car") else 30)


def test_time_feature_of_a_goal_env() -> None:
    """Law: in a Dict the time feature is added to `observation`, and without a limit the horizon is 1000 or told."""
    for text, horizon in (("time-feature", 1000), ("time-feature:fallback=5", 5)):
        play_both(wrap(Bounded(), text), TimeFeatureWrapper(Bounded(), max_steps=horizon))


def test_the_cap_of_an_episode_does_not_change_its_time_feature() -> None:
    """Law: max_steps cuts an episode; what the agent observes until then stays as it was trained on."""
    cut, whole = (make(EnvSpec("Pendulum-v1", wrappers=("time-feature",), max_steps=n)) for n in (5, None))
    cut.reset(seed=0), whole.reset(seed=0)
    for t in range(5):
        ours, theirs = cut.step(np.zeros(1, np.float32)), whole.step(np.zeros(1, np.float32))
        same(ours[0], theirs[0])
        assert ours[3] == (t == 4)


def found(env: Any) -> list[spaces.Space]:
    """The spaces of an env's observations."""
    return list(parts(env.observation_space).values())


@pytest.mark.parametrize(
    ("spec", "n"),
    [
        (EnvSpec("CartPole-v1"), 3),
        (EnvSpec(SEE), 4),
        (EnvSpec(SEE, {"channels_first": True}), 4),
        (EnvSpec(BOTH), 2),
        (EnvSpec("CarRacing-v3"), 2),
    ],
    ids=str,
)
def test_frame_stack_equals_sb3(spec: EnvSpec, n: int) -> None:
    """Law: frame-stack:N is VecFrameStack: vectors, images with channels last and first, Dicts; zeros at the start."""
    ours, theirs = wrap(make(spec), f"frame-stack:{n}"), VecFrameStack(DummyVecEnv([lambda: make(spec)]), n)
    # Not the bounds: those of VecFrameStack repeat each number, so that a vector's are in another order than it is.
    assert [part.shape for part in found(ours)] == [part.shape for part in found(theirs)]
    theirs.seed(5)
    seen, rng = theirs.reset(), np.random.default_rng(0)
    obs = ours.reset(seed=5)[0]
    for _ in range(25):
        assert obs in ours.observation_space
        same(obs, {k: v[0] for k, v in seen.items()} if isinstance(seen, dict) else seen[0])
        ours.action_space.seed(int(rng.integers(1000)))
        action = ours.action_space.sample()
        obs, _, terminated, truncated, _ = ours.step(action)
        seen, _, done, infos = theirs.step(np.array([action]))
        if done[0]:
            assert terminated or truncated
            same(obs, infos[0]["terminal_observation"])
            obs = ours.reset()[0]


class Overwriting(gymnasium.Env):
    """Writes each observation over the last: the time."""

    observation_space, action_space = spaces.Box(0, 99, (1,)), spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._shown = np.ones(1, np.float32)
        return self._shown, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._shown += 1
        return self._shown, 0.0, False, False, {}


@pytest.mark.parametrize("text", ["frame-stack:3", "frame-stack:3,pad=first"])
def test_a_stack_keeps_what_was_seen(text: str) -> None:
    """Law: frames stay as they were when seen, also of an env that reuses its array."""
    env = wrap(Overwriting(), text)
    env.reset()
    assert [env.step(0)[0].tolist() for _ in range(2)] == [[1 if "first" in text else 0, 1, 2], [1, 2, 3]]


def test_channels_first_equals_sb3() -> None:
    """Law: channels-first is VecTransposeImage, on an image and on the images of a Dict; channels-last undoes it."""
    for env_id in (SEE, BOTH):
        ours, theirs = wrap(make(EnvSpec(env_id)), "channels-first"), DummyVecEnv([lambda e=env_id: make(EnvSpec(e))])
        moved = VecTransposeImage(theirs)
        assert ours.observation_space == moved.observation_space
        theirs.seed(3)
        seen, obs = moved.reset(), ours.reset(seed=3)[0]
        same(obs, {k: v[0] for k, v in seen.items()} if isinstance(seen, dict) else seen[0])
        play_both(wrap(ours, "channels-last"), make(EnvSpec(env_id)))


def test_frame_skip() -> None:
    """Law: an action is taken N times, the rewards added, the end of an episode not stepped over."""
    env, plain = make(EnvSpec(REACH, {}, ("frame-skip:4",), 30)), make(EnvSpec(REACH, max_steps=60))
    env.reset(seed=1), plain.reset(seed=1)
    skipped = env.step(np.ones(1))
    four = [plain.step(np.ones(1)) for _ in range(4)]
    same(skipped[0], four[-1][0])
    assert skipped[1] == pytest.approx(sum(step[1] for step in four))
    rest = [env.step(np.zeros(1)) for _ in range(12)]
    assert [step[3] for step in rest] == [False] * 11 + [True]  # 50 steps of Reach itself: the 13th is cut short
    assert sum(step[1] for step in rest) == pytest.approx(sum(plain.step(np.zeros(1))[1] for _ in range(46)))


def test_history() -> None:
    """Law: the last N observations, oldest first, then the last N actions, zeros before the beginning."""
    env, plain = make(EnvSpec(REACH, wrappers=("history:2",))), make(EnvSpec(REACH))
    assert env.observation_space.shape == (2 * 2 + 2 * 1,)
    for seed in (4, 5):
        seen, [first, _] = plain.reset(seed=seed)[0], env.reset(seed=seed)
        same(first, np.r_[0, 0, seen, 0, 0])
        later, *_ = plain.step(np.array([0.5]))
        same(env.step(np.array([0.5]))[0], np.r_[seen, later, 0, 0.5])


def test_velocities_are_hidden() -> None:
    """Law: mask-velocity sets the velocities to zero and leaves all else, in the envs that it knows."""
    play = make(EnvSpec("LunarLander-v3", wrappers=("mask-velocity",)))
    bare = make(EnvSpec("LunarLander-v3"))
    obs, seen = play.reset(seed=0)[0], bare.reset(seed=0)[0]
    assert (obs == seen * np.array([1, 1, 0, 0, 1, 0, 1, 1])).all()
    with pytest.raises(UsageError, match="not known"):
        make(EnvSpec("Acrobot-v1", wrappers=("mask-velocity",)))


def test_action_masks_of_the_env() -> None:
    """Law: action_masks() is found through other wrappers and observed with the state that it belongs to, last."""
    env = make(EnvSpec(ALLOWED, wrappers=("pad:2", "action-mask")))
    assert list(env.observation_space.spaces) == [OBS, MASK]
    obs, _ = env.reset(seed=0)
    for _ in range(15):
        assert (obs[MASK] == env.unwrapped.action_masks()).all()
        allowed = np.where(obs[MASK] == 1, obs[OBS][:4], -np.inf)
        obs, reward, *_ = env.step(int(allowed.argmax()))
        assert reward == 1


def test_action_masks_in_info() -> None:
    """Law: without such a method the mask is that of info; in a Dict it comes after the env's own parts."""
    env = make(EnvSpec("Taxi-v4", wrappers=("action-mask",)))
    obs, info = env.reset(seed=0)
    same(obs[MASK], info["action_mask"])
    obs, *_, info = env.step(int(np.flatnonzero(obs[MASK])[0]))
    same(obs[MASK], info["action_mask"])


class Masked(Bounded):
    """A Dict, and masks of any action space, as a flat array or an array a choice."""

    def __init__(self, does: spaces.Space, mask: Any) -> None:
        super().__init__()
        self.action_space, self._mask = does, mask

    def action_masks(self) -> Any:
        return self._mask


@pytest.mark.parametrize(
    ("does", "mask", "flat"),
    [
        (spaces.MultiDiscrete([3, 2]), [[True, False, True], [False, True]], [1, 0, 1, 0, 1]),
        (spaces.MultiDiscrete([3, 2]), np.array([1, 0, 1, 0, 1], bool), [1, 0, 1, 0, 1]),
        (spaces.MultiBinary(2), [[True, False], [True, True]], [1, 0, 1, 1]),
    ],
)
def test_masks_of_several_choices(does: spaces.Space, mask: Any, flat: list[int]) -> None:
    """Law: a mask has one number a choice, sum(nvec) or two a bit, side by side, after the parts of a Dict."""
    env = wrap(Masked(does, mask), "action-mask")
    obs, _ = env.reset(seed=0)
    assert list(env.observation_space.spaces) == ["achieved_goal", "observation", MASK]
    same(obs[MASK], np.array(flat, np.int8))
    assert obs in env.observation_space


@pytest.mark.parametrize(
    ("env", "what"),
    [
        (make(EnvSpec("CartPole-v1")), "does not say which actions"),
        (make(EnvSpec("Pendulum-v1")), "cannot be masked"),
        (Masked(spaces.Discrete(3), np.ones(4, bool)), "mask has 4 numbers"),
        (wrap(make(EnvSpec(ALLOWED)), "action-mask"), "not needed"),
    ],
    ids=["no mask", "continuous", "another width", "twice"],
)
def test_masks_that_cannot_be(env: gymnasium.Env, what: str) -> None:
    """Law: an env that does not say which actions are allowed is a usage error, not a mask of ones."""
    with pytest.raises(UsageError, match=what):
        wrap(env, "action-mask").reset(seed=0)


def test_images_of_old_libraries() -> None:
    """Law: grayscale:cv2 is OpenCV's; mean, bytescale and a bilinear resize are what scipy's imresize did."""
    import cv2
    from PIL import Image

    frame = np.random.default_rng(0).integers(20, 200, (210, 160, 3), np.uint8)
    env = Constant(frame)
    same(wrap(env, "grayscale:cv2").reset()[0][..., 0], cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY))
    for text in ("crop-rows:first=35,end=195", "grayscale:mean", "bytescale", "resize:80x80,by=bilinear"):
        env = wrap(env, text)
    gray = frame[35:195].mean(2)
    stretched = ((gray - gray.min()) * (255 / (gray.max() - gray.min())) + 0.5).astype(np.uint8)
    obs = env.reset()[0]
    assert obs.shape == env.observation_space.shape == (80, 80, 1)
    same(obs[..., 0], np.asarray(Image.fromarray(stretched).resize((80, 80), Image.Resampling.BILINEAR)))
    assert stretched.min() == 0
    assert stretched.max() == 255


def test_a_frame_of_one_colour_stays_one() -> None:
    """Law: a frame without contrast is stretched to zeros, with no division by zero."""
    assert (wrap(Constant(np.full((8, 8, 1), 7, np.uint8)), "bytescale").reset()[0] == 0).all()


def test_truth_values_as_bytes() -> None:
    """Law: true is 255 and false 0; numbers between bounds are spread over 0 to 255."""
    on = np.random.default_rng(0).random((4, 4, 2)) < 0.5
    same(wrap(Constant(on), "bytes").reset()[0], on * np.uint8(255))
    shades = Constant(np.array([[[-1.0], [0.0], [1.0]]], np.float32), spaces.Box(-1, 1, (1, 3, 1)))
    assert wrap(shades, "bytes").reset()[0].ravel().tolist() == [0, 128, 255]


class Constant(gymnasium.Env):
    """Always shows the same."""

    action_space = spaces.Discrete(2)

    def __init__(self, shown: np.ndarray, space: spaces.Space | None = None) -> None:
        high = 1 if shown.dtype == bool else 255
        self.observation_space = space or spaces.Box(0, high, shown.shape, shown.dtype.type)
        self._shown = shown

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return self._shown, {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return self._shown, 0.0, False, False, {}


def test_a_foreign_wrapper() -> None:
    """Law: package.module:Class with arguments by name is applied; what is no wrapper class is not called."""
    plain = make(EnvSpec(REACH))
    env = wrap(make(EnvSpec(REACH)), "gymnasium.wrappers:TimeLimit:max_episode_steps=3")
    env.reset(seed=0), plain.reset(seed=0)
    assert [env.step(np.zeros(1))[3] for _ in range(3)] == [False, False, True]
    for target in ("os.path:join", "gymnasium.spaces:Box", "json:dumps"):
        with pytest.raises(UsageError, match=r"is no wrapper|is no env wrapper|unknown env wrapper"):
            wrap(plain, target)


@pytest.mark.parametrize(
    ("env_id", "text"),
    [
        (REACH, "frame-stack:0"),
        (REACH, "frame-stack:4,axis=up"),
        (REACH, "frame-stack:4,depth=2"),
        (REACH, "resize:64"),
        (REACH, "resize:64x64"),
        (REACH, "grayscale"),
        (REACH, "channels-first"),
        (REACH, "bytes"),
        (SEE, "pad:3"),
        (SEE, "time-feature"),
        (SEE, "history:2"),
        (SEE, "rescale-action"),
        (SEE, "clip-action"),
        (SEE, "sticky:1.5"),
        (SEE, "sticky:often"),
        (SEE, "time-limit"),
        (SEE, "crop-rows:first=3"),
        (SEE, "crop-rows:first=30,end=40"),
        (SEE, "atari"),
        (REACH, "gymnasium.wrappers:TimeLimit:n=3"),
    ],
)
def test_wrappers_that_do_not_fit(env_id: str, text: str) -> None:
    """Law: a wrapper that cannot read its arguments, or does not fit its env, is a usage error in three lines."""
    with pytest.raises(UsageError) as error:
        make(EnvSpec(env_id, wrappers=(text,)))
    assert len(error.value.lines()) == 3


def test_every_wrapper_has_help_and_loads() -> None:
    """Law: each row of the table names a function and a line that shows how it is written."""
    for name in WRAPPERS.names():
        assert callable(WRAPPERS.load(name))
        assert WRAPPERS.help(name)


def test_spaces_of() -> None:
    """Law: the spaces of a described env are those its wrappers give."""
    seen, does = spaces_of(EnvSpec(SEE, wrappers=("frame-stack:4", "channels-first")))
    assert str(seen) == "Box(4, 36, 36) uint8"
    assert str(does) == "Discrete(4)"
