"""From an EnvSpec to a running environment, and from gymnasium's spaces to ours."""

from __future__ import annotations

import difflib
import importlib
import warnings

import gymnasium
import numpy as np
from gymnasium import spaces

from kdcli.envs.wrappers import wrap
from kdcli.errors import UsageError
from kdcli.spec import Box, Discrete, EnvSpec, MultiBinary, MultiDiscrete, Space, n_features, same_space

DEFAULT_LIMIT = 10_000
_PACKAGES = {"Box2D": "gymnasium[box2d]", "mujoco": "gymnasium[mujoco]", "ale_py": "ale-py", "pygame": "pygame"}


def make(spec: EnvSpec) -> gymnasium.Env:
    """The environment, its episodes capped at `spec.max_steps` or its own limit or 10,000 steps.

    Raises:
        UsageError: unknown id, missing package, or bad keyword arguments.
    """
    import kdcli.envs.toys  # noqa: F401  (registers the toy envs)

    try:
        known = _registered(spec.id)
        limit = spec.max_steps or known.max_episode_steps or DEFAULT_LIMIT
        _quiet_mujoco(known)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            env = gymnasium.make(spec.id, max_episode_steps=limit, disable_env_checker=True, **spec.kwargs)
    except (gymnasium.error.Error, ImportError) as error:
        raise _explain(spec.id, error) from None
    except TypeError as error:
        raise UsageError(f"{spec.id} does not take these arguments", str(error), "check --env-kwargs") from None
    for name in spec.wrappers:
        env = wrap(env, name)
    return env


def _registered(env_id: str) -> gymnasium.envs.registration.EnvSpec:
    """The registration of `env_id`; `module:Name-v0` imports the module first."""
    module, _, name = env_id.rpartition(":")
    if module:
        importlib.import_module(module)
    return gymnasium.spec(name)


def _quiet_mujoco(known: gymnasium.envs.registration.EnvSpec) -> None:
    """MuJoCo prints deprecation notes of its own models and leaves a MUJOCO_LOG.TXT in the working folder."""
    if "mujoco" in str(known.entry_point):
        import mujoco

        mujoco.set_mju_user_warning(lambda _: None)


def _explain(env_id: str, error: Exception) -> UsageError:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    package = next((p for key, p in _PACKAGES.items() if key.lower() in str(error).lower()), None)
    if package is not None and isinstance(error, ImportError | gymnasium.error.DependencyNotInstalled):
        return UsageError(f"cannot make {env_id}", text, f"pip install '{package}'")
    near = difflib.get_close_matches(env_id, list(gymnasium.registry), n=1)
    return UsageError(f"cannot make {env_id}", text, f"did you mean --env {near[0]}?" if near else "check --env")


def to_space(space: spaces.Space) -> Space:
    """A gymnasium space as data.

    Raises:
        UsageError: a kind kdcli does not handle.
    """
    dtype = np.dtype(space.dtype).name if space.dtype is not None else "float32"
    match space:
        case spaces.Box():
            return Box(tuple(space.shape), dtype, space.low, space.high)
        case spaces.Discrete():
            return Discrete(int(space.n), int(space.start), dtype)
        case spaces.MultiDiscrete() if space.nvec.ndim == 1:
            return MultiDiscrete(tuple(int(n) for n in space.nvec), dtype)
        case spaces.MultiBinary() if len(space.shape) == 1:
            return MultiBinary(int(space.shape[0]), dtype)
    raise UsageError(f"the space {space} is not handled yet", "kdcli knows Box, Discrete, MultiDiscrete, MultiBinary")


def check_fits(spec: EnvSpec, env: tuple[Space, Space], agent: tuple[Space, Space]) -> None:
    """Check (observation, action) spaces of an env against an agent's.

    Raises:
        UsageError: they differ; says what is known about such a difference and how to go on.
    """
    if not same_space(env[0], agent[0]):
        why, fix = _advise(spec, env[0], agent[0])
        raise UsageError(f"{spec} observes {env[0]}, the agent was trained on {agent[0]}", why, fix)
    if not same_space(env[1], agent[1]):
        raise UsageError(f"{spec} acts by {env[1]}, the agent by {agent[1]}", "it is another env", "name it with --env")


def _advise(spec: EnvSpec, env: Space, agent: Space) -> tuple[str, str]:
    missing = n_features(agent) - n_features(env)
    if spec.id.startswith("Ant-") and n_features(agent) in (111, 112):
        return (
            "Ant-v3's 84 contact forces were always zero when trained through mujoco-py > 2.0; today's are real",
            "--env Ant-v5 --env-kwargs include_cfrc_ext_in_observation=false --wrapper pad:84"
            + (" --wrapper time-feature" if n_features(agent) == 112 else ""),
        )
    if missing == 1:
        return "one more input: RL Zoo's TimeFeatureWrapper adds one", "--wrapper time-feature"
    if missing > 1:
        return f"the agent has {missing} inputs more, added by a wrapper or another version", "name the env with --env"
    return "it is another env, another version, or a wrapper is missing", "name the env with --env, see --wrapper"
