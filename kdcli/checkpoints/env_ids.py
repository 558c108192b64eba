"""Which of today's environments an old id means. Pure data: gymnasium is not asked."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kdcli.spec import EnvSpec

# gymnasium dropped these, or keeps them only to say that they are gone. Same observations and actions.
RENAMED = {
    "Ant-v2": "Ant-v5",
    "Ant-v3": "Ant-v5",
    "CarRacing-v0": "CarRacing-v3",
    "CarRacing-v1": "CarRacing-v3",
    "CarRacing-v2": "CarRacing-v3",
    "CliffWalking-v0": "CliffWalking-v1",
    "FrozenLake-v0": "FrozenLake-v1",
    "HalfCheetah-v2": "HalfCheetah-v5",
    "HalfCheetah-v3": "HalfCheetah-v5",
    "Hopper-v2": "Hopper-v5",
    "Hopper-v3": "Hopper-v5",
    "Humanoid-v2": "Humanoid-v4",
    "Humanoid-v3": "Humanoid-v4",
    "HumanoidStandup-v2": "HumanoidStandup-v4",
    "InvertedDoublePendulum-v2": "InvertedDoublePendulum-v4",
    "InvertedPendulum-v2": "InvertedPendulum-v5",
    "LunarLander-v2": "LunarLander-v3",
    "LunarLanderContinuous-v2": "LunarLanderContinuous-v3",
    "Pendulum-v0": "Pendulum-v1",
    "Pusher-v2": "Pusher-v5",
    "Reacher-v2": "Reacher-v4",
    "Swimmer-v2": "Swimmer-v5",
    "Swimmer-v3": "Swimmer-v5",
    "Taxi-v3": "Taxi-v4",
    "Walker2d-v2": "Walker2d-v5",
    "Walker2d-v3": "Walker2d-v5",
}
# Inputs of today's envs without wrappers.
N_INPUTS = {
    "Acrobot-v1": 6,
    "BipedalWalker-v3": 24,
    "BipedalWalkerHardcore-v3": 24,
    "CartPole-v1": 4,
    "HalfCheetah-v5": 17,
    "Hopper-v5": 11,
    "Humanoid-v4": 376,
    "HumanoidStandup-v4": 376,
    "InvertedDoublePendulum-v4": 11,
    "InvertedPendulum-v5": 4,
    "LunarLander-v3": 8,
    "LunarLanderContinuous-v3": 8,
    "MountainCar-v0": 2,
    "MountainCarContinuous-v0": 2,
    "Pendulum-v1": 3,
    "Pusher-v5": 23,
    "Reacher-v4": 11,
    "Swimmer-v5": 8,
    "Walker2d-v5": 17,
}
TIME_FEATURE, MASK_VELOCITY, ATARI = "time-feature", "mask-velocity", "atari"
# Atari's ids before ALE/...-v5, whose arguments say the same.
_OLD_GAME = re.compile(
    r"(?P<game>[A-Z]\w*?)(?P<ram>-ram)?(?P<kind>NoFrameskip|Deterministic)-v(?P<version>[04])", re.ASCII
)
_V5_FRAMESKIP = 4
# RL Zoo registers some envs without their velocities, and writes a file's name with - for /.
_WITHOUT_VELOCITY = re.compile(r"(\w+)NoVel(-v\d+)", re.ASCII)
_SLASHED = re.compile(r"(ALE|MinAtar)-(.+)", re.ASCII)
# Ant through mujoco-py > 2.0: 27 inputs that move, then 84 contact forces that were always zero.
ANT_MOVING, ANT_CONTACTS = 27, 84
NEVER_VARIED = 1e-6


@dataclass(frozen=True, eq=False)
class Inputs:
    """What an agent was given in training: `n` numbers and, where it was normalised, their variance (n,)."""

    n: int
    variance: np.ndarray | None = None


def today(env: EnvSpec, inputs: Inputs) -> tuple[EnvSpec, list[str]]:
    """The env of today for the one that gave these inputs in training, and what there is to say about it."""
    if env.id in ("Ant-v2", "Ant-v3"):
        return _ant(env, inputs)
    found, said = _renamed(env)
    if TIME_FEATURE not in env.wrappers and inputs.n - N_INPUTS.get(found.id, inputs.n) == 1:
        said.append("the agent has one input more than the env: if it was a TimeFeatureWrapper, --wrapper time-feature")
    return found, said


def _renamed(env: EnvSpec) -> tuple[EnvSpec, list[str]]:
    """The env under the id that it has today, and where that is another, a sentence."""
    env = replace(env, id=_SLASHED.sub(r"\1/\2", env.id))
    if old := _OLD_GAME.fullmatch(env.id):
        found = _held(replace(env, id=f"ALE/{old['game']}-v5", kwargs={**_arguments(old), **env.kwargs}))
        return found, [f"taking {found} for {env.id}, which is the same game"]
    if bare := _WITHOUT_VELOCITY.fullmatch(env.id):
        name = bare[1] + bare[2]
        found = replace(env, id=RENAMED.get(name, name), wrappers=(MASK_VELOCITY, *env.wrappers))
        return found, [f"taking {found} for RL Zoo's {env.id}"]
    if env.id in RENAMED:
        found = replace(env, id=RENAMED[env.id])
        return found, [f"{env.id} is gone from gymnasium: taking {found.id}, which observes and acts alike"]
    return _held(env), []


def _arguments(old: re.Match[str]) -> dict[str, Any]:
    """What ALE/...-v5 must be told to be the game of an older id."""
    slow = 3 if old["game"] == "SpaceInvaders" else 4  # its lasers blink in every fourth frame
    told = {
        "frameskip": 1 if old["kind"] == "NoFrameskip" else slow,
        "repeat_action_probability": 0.25 if old["version"] == "0" else 0.0,
    }
    return {**told, "obs_type": "ram"} if old["ram"] else told


def _held(env: EnvSpec) -> EnvSpec:
    """Atari as it was trained on where the game skipped frames under a wrapper that skips some again."""
    skipped = env.kwargs.get("frameskip", _V5_FRAMESKIP)
    if not env.id.startswith("ALE/") or skipped == 1 or not isinstance(skipped, int):
        return env
    told = [f"{text},inner={skipped}" if ":" in text else f"{text}:inner={skipped}" for text in env.wrappers]
    atari = [text.partition(":")[0] == ATARI for text in env.wrappers]
    return replace(
        env, wrappers=tuple(new if own else old for old, new, own in zip(env.wrappers, told, atari, strict=True))
    )


def _ant(env: EnvSpec, inputs: Inputs) -> tuple[EnvSpec, list[str]]:
    """Ant-v3 with its 84 contact forces: always zero in most trainings, and then zeros are what it must be given."""
    timed = TIME_FEATURE in env.wrappers
    if inputs.n - timed != ANT_MOVING + ANT_CONTACTS:
        return replace(env, id=RENAMED[env.id]), [f"{env.id} is gone from gymnasium: taking {RENAMED[env.id]}"]
    contacts = None if inputs.variance is None else inputs.variance[ANT_MOVING : ANT_MOVING + ANT_CONTACTS]
    if contacts is None or not (contacts < NEVER_VARIED).all():
        why = "no statistics say" if contacts is None else "the statistics say it is not so"
        return env, [
            f"{env.id} is gone from gymnasium, and today's contact forces differ: they were always zero in most "
            f"trainings, but {why} here; then --env Ant-v5 --env-kwargs include_cfrc_ext_in_observation=false "
            f"--wrapper pad:{ANT_CONTACTS}, else --env Ant-v4 --env-kwargs use_contact_forces=true"
        ]
    kwargs = {**env.kwargs, "include_cfrc_ext_in_observation": False}
    found = replace(env, id="Ant-v5", kwargs=kwargs, wrappers=(f"pad:{ANT_CONTACTS}", *env.wrappers))
    return found, [f"{env.id} is gone: taking {found}, since its contact forces were always zero in training"]
