"""A Stable-Baselines3 or sb3-contrib zip as an Agent, without either being installed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdcli import artifact
from kdcli.agents.agent import Agent
from kdcli.agents.observation import Preprocess, is_image
from kdcli.agents.policy import Policy
from kdcli.agents.store import check_sizes
from kdcli.checkpoints import actor_critic, ars, off_policy
from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.env_ids import Inputs
from kdcli.checkpoints.saved import Saved, read_saved
from kdcli.checkpoints.vecnormalize import Moments, find_moments
from kdcli.checkpoints.zoo import find_env, look_around
from kdcli.errors import RefusedError
from kdcli.progress import Listener, Note
from kdcli.spec import n_features


@dataclass(frozen=True)
class Family:
    """How the policies of one class are read; `critic` and `unneeded` are prefixes of tensors."""

    build: Callable[[Saved, Listener], Policy]
    algorithm: Callable[[Saved], str]
    critic: tuple[str, ...]
    unneeded: tuple[str, ...]
    tells_normalized: bool = False  # keeps raw observations if, and only if, it was trained with VecNormalize


def _off(build: Callable[[Saved, Listener], Policy], algorithm: str) -> Family:
    return Family(build, lambda _: algorithm, off_policy.CRITIC, off_policy.UNNEEDED)


_ACTOR_CRITIC = Family(actor_critic.policy, actor_critic.algorithm, actor_critic.CRITIC, actor_critic.UNNEEDED, True)
_ARS = Family(ars.policy, lambda _: "ARS", ars.CRITIC, ars.UNNEEDED, True)

POLICIES = {
    "stable_baselines3.common.policies.ActorCriticPolicy": _ACTOR_CRITIC,
    "stable_baselines3.ppo.policies.PPOPolicy": _ACTOR_CRITIC,  # until 0.6
    "sb3_contrib.common.maskable.policies.MaskableActorCriticPolicy": _ACTOR_CRITIC,
    "stable_baselines3.dqn.policies.DQNPolicy": _off(off_policy.dqn, "DQN"),
    "sb3_contrib.qrdqn.policies.QRDQNPolicy": _off(off_policy.qrdqn, "QRDQN"),
    "stable_baselines3.sac.policies.SACPolicy": _off(off_policy.sac, "SAC"),
    "sb3_contrib.tqc.policies.TQCPolicy": _off(off_policy.sac, "TQC"),
    "stable_baselines3.td3.policies.TD3Policy": Family(
        off_policy.td3, off_policy.td3_algorithm, off_policy.CRITIC, off_policy.UNNEEDED
    ),
    "sb3_contrib.ars.policies.ARSPolicy": _ARS,
    "sb3_contrib.ars.policies.ARSLinearPolicy": _ARS,
}


def read(path: Path, config: LoadConfig, listen: Listener) -> Agent:
    """The agent in the zip at `path`, with the statistics and the env that `config` or the files beside it name.

    Raises:
        UsageError: a file cannot be opened, or an option does not fit.
        RefusedError: a file is damaged, unsafe, or of a kind not read yet.
    """
    saved = read_saved(path)
    family = _family(saved)
    policy = family.build(saved, listen)
    saved.weights.refuse_leftovers(family.unneeded)
    _check(saved, policy)
    around = look_around(path)
    moments = find_moments(path, config, around, listen)
    if family.tells_normalized and around.vecnormalize is None and config.vecnormalize == "auto":
        _warn(saved, listen)
    preprocess = _preprocess(saved, moments)
    env = find_env(path, config, around, _inputs(preprocess, moments), listen)
    return Agent(preprocess, policy.eval(), path.stem, env, _facts(path, saved, family, moments))


def _warn(saved: Saved, listen: Listener) -> None:
    if saved.data.get("_last_original_obs") is not None:
        listen(
            Note(
                f"{saved.name} was trained with VecNormalize and its file is not here: unless only rewards were "
                "normalised, name it with --vecnormalize, or the agent will act blindly"
            )
        )


def _family(saved: Saved) -> Family:
    """The way to read its policy class.

    Raises:
        RefusedError: a class kdcli does not read.
    """
    if saved.policy_class not in POLICIES:
        known = sorted(name.rpartition(".")[2] for name in POLICIES)
        raise RefusedError(
            f"{saved.name}: the policy class {saved.policy_class} is not read yet",
            f"known: {', '.join(known)}",
            "export the policy to ONNX where it was trained",
        )
    return POLICIES[saved.policy_class]


def _check(saved: Saved, policy: Policy) -> None:
    """Raise RefusedError when network and spaces do not fit, or actions cannot be scaled to their bounds."""
    try:
        check_sizes(policy, n_features(saved.observation))
    except ValueError as error:
        raise RefusedError(f"{saved.name} does not fit its own spaces", str(error), "") from None
    if policy.rule.squash == "tanh" and not policy.rule.bounded:
        raise RefusedError(f"{saved.name}: squashed actions need finite bounds", f"the space is {saved.action}")


def _preprocess(saved: Saved, moments: Moments | None) -> Preprocess:
    if moments is not None and moments.mean.shape != saved.observation.shape:
        raise RefusedError(
            f"{moments.name} does not belong to {saved.name}",
            f"its statistics have shape {moments.mean.shape}, the observations {saved.observation.shape}",
            "name the right file with --vecnormalize, or --no-vecnormalize",
        )
    image = is_image(saved.observation) and saved.flag("normalize_images", default=True)
    return Preprocess(saved.observation, None if moments is None else moments.normalizer(), image)


def _inputs(preprocess: Preprocess, moments: Moments | None) -> Inputs:
    return Inputs(preprocess.n_features, None if moments is None else moments.variance.reshape(-1))


def _facts(path: Path, saved: Saved, family: Family, moments: Moments | None) -> dict[str, Any]:
    """Where the agent came from, as JSON values."""
    steps = saved.data.get("num_timesteps")
    return {
        "format": "sb3",
        "algorithm": family.algorithm(saved),
        "sb3_version": saved.version,
        "timesteps": steps if isinstance(steps, int) else None,
        "total_params": saved.weights.count(),
        "critic_params": saved.weights.count(*family.critic) if family.critic else 0,
        "vecnormalize": None if moments is None else moments.sha256,
        "sha256": artifact.sha256(path),
    }
