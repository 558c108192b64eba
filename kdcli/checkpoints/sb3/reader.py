"""A Stable-Baselines3 or sb3-contrib zip as an Agent, without either being installed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kdcli import artifact
from kdcli.agents.agent import Agent
from kdcli.agents.policy import Policy
from kdcli.agents.store import check_sizes
from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.critics import critics_of
from kdcli.checkpoints.env_ids import Inputs
from kdcli.checkpoints.sb3 import actor_critic, ars, crossq, off_policy
from kdcli.checkpoints.sb3.archive import Saved, read_saved, read_saved_policy
from kdcli.checkpoints.sb3.preprocessing import Source, preprocess
from kdcli.checkpoints.sb3.vecnormalize import Moments, find_moments
from kdcli.checkpoints.sb3.zoo import find_env, read_surroundings
from kdcli.checkpoints.stacking import frames_after, padded, repeated
from kdcli.errors import RefusedError, UsageError, unknown
from kdcli.networks.activations import ACTIVATIONS
from kdcli.progress import Listener, Note
from kdcli.spec import EnvSpec, n_features, parts

MASK_WRAPPER = "action-mask"


@dataclass(frozen=True)
class Family:
    """How the policies of one class are read; `critic` are prefixes of tensors, `unneeded` those nobody takes."""

    build: Callable[[Saved, Listener], Policy]
    algorithm: Callable[[Saved], str]
    critic: tuple[str, ...]
    unneeded: Callable[[Saved], tuple[str, ...]]
    tells_normalized: bool = False  # keeps raw observations if, and only if, it was trained with VecNormalize


def _off(build: Callable[[Saved, Listener], Policy], algorithm: str) -> Family:
    return Family(build, lambda _: algorithm, off_policy.CRITIC, off_policy.unneeded)


def _named(module: str, names: Iterable[str], family: Family) -> dict[str, Family]:
    return {f"{module}.{name}": family for name in names}


_ACTOR_CRITIC = Family(actor_critic.policy, actor_critic.algorithm, actor_critic.CRITIC, actor_critic.unneeded, True)
_ARS = Family(ars.policy, lambda _: "ARS", (), lambda _: (), True)
_TD3 = Family(off_policy.td3, off_policy.td3_algorithm, off_policy.CRITIC, off_policy.unneeded)
_CROSSQ = Family(crossq.policy, lambda _: "CrossQ", off_policy.CRITIC, crossq.unneeded)
_SB3, _CONTRIB, _WITH_IMAGES = "stable_baselines3", "sb3_contrib", ("CnnPolicy", "MultiInputPolicy")
_ON_POLICY = ("ActorCriticPolicy", "ActorCriticCnnPolicy", "MultiInputActorCriticPolicy")

POLICIES = {
    **_named(f"{_SB3}.common.policies", _ON_POLICY, _ACTOR_CRITIC),
    **_named(f"{_SB3}.ppo.policies", ["PPOPolicy"], _ACTOR_CRITIC),  # until 0.6
    **_named(f"{_CONTRIB}.common.maskable.policies", [f"Maskable{name}" for name in _ON_POLICY], _ACTOR_CRITIC),
    **_named(f"{_CONTRIB}.common.recurrent.policies", [f"Recurrent{name}" for name in _ON_POLICY], _ACTOR_CRITIC),
    **_named(f"{_SB3}.dqn.policies", ["DQNPolicy", *_WITH_IMAGES], _off(off_policy.dqn, "DQN")),
    **_named(f"{_CONTRIB}.qrdqn.policies", ["QRDQNPolicy", *_WITH_IMAGES], _off(off_policy.qrdqn, "QRDQN")),
    **_named(f"{_SB3}.sac.policies", ["SACPolicy", *_WITH_IMAGES], _off(off_policy.sac, "SAC")),
    **_named(f"{_CONTRIB}.tqc.policies", ["TQCPolicy", *_WITH_IMAGES], _off(off_policy.sac, "TQC")),
    **_named(f"{_SB3}.td3.policies", ["TD3Policy", *_WITH_IMAGES], _TD3),
    **_named(f"{_CONTRIB}.crossq.policies", ["CrossQPolicy"], _CROSSQ),
    # imitation's only set widths
    **_named("imitation.policies.base", ["FeedForward32Policy"], _ACTOR_CRITIC),
    **_named("imitation.policies.base", ["SAC1024Policy"], _off(off_policy.sac, "SAC")),
    **_named(f"{_CONTRIB}.ars.policies", ["ARSPolicy", "ARSLinearPolicy"], _ARS),
}


def read(path: Path, config: LoadConfig, listen: Listener) -> Agent:
    """The agent in the zip at `path`, with the statistics and the env that `config` or the files beside it name.

    Raises:
        UsageError: a file cannot be opened, or an option does not fit.
        RefusedError: a file is damaged, unsafe, or of a kind not read yet.
    """
    return _agent(path, _told(read_saved(path, POLICIES), config, listen), config, listen)


def read_policy(path: Path, config: LoadConfig, listen: Listener) -> Agent:
    """The agent in the file at `path` that a policy's own `save` wrote; otherwise as `read`.

    Raises:
        UsageError: as `read`.
        RefusedError: as `read`.
    """
    return _agent(path, _told(read_saved_policy(path), config, listen), config, listen)


def _told(saved: Saved, config: LoadConfig, listen: Listener) -> Saved:
    """With the activation that the user names where the class is not Stable-Baselines3's.

    Raises:
        UsageError: it is, and so is its activation.
    """
    if saved.own_class is None:
        if config.activation is not None:
            what = f"--activation says nothing about {saved.name}"
            raise UsageError(what, "its policy class is Stable-Baselines3's, and the file tells it", "leave it out")
        return saved
    short = saved.policy_class.rpartition(".")[2]
    listen(Note(f"{saved.own_class} is read as the {short} whose tensors it has; what it computes otherwise is unseen"))
    if config.activation is None:
        return saved
    if config.activation not in ACTIVATIONS:
        raise unknown("activation", config.activation, ACTIVATIONS)
    return replace(saved, said_activation=config.activation)


def _agent(path: Path, saved: Saved, config: LoadConfig, listen: Listener) -> Agent:
    family = POLICIES[saved.policy_class]
    policy = family.build(saved, listen)
    if config.critics:
        policy.critics.extend(critics_of(saved, policy))
    saved.weights.refuse_leftovers(family.unneeded(saved))
    around = read_surroundings(path)
    moments = find_moments(path, config, around, listen)
    if family.tells_normalized and around.vecnormalize is None and config.vecnormalize == "auto":
        _warn(saved, listen)
    spaces = parts(saved.observation)
    n_frames = frames_after(spaces, moments)
    inputs = Inputs(n_features(saved.observation) // n_frames, None if moments is None else moments.variance())
    env = _masking(find_env(path, config, around, inputs, listen), policy)
    if moments is not None and n_frames > 1:
        env, moments = padded(env, spaces, moments, n_frames, listen), repeated(moments, n_frames)
    sees = preprocess(saved, moments, Source(env, config.channels_last), policy.rule.n_mask, listen)
    _check(saved, policy, sees.n_features)
    return Agent(sees, policy.eval(), path.stem, env, _facts(path, saved, family, moments))


def _warn(saved: Saved, listen: Listener) -> None:
    if saved.data.get("_last_original_obs") is not None:
        listen(
            Note(
                f"{saved.name} was trained with VecNormalize and its file is not here: unless only rewards were "
                "normalised, name it with --vecnormalize, or the agent will act blindly"
            )
        )


def _masking(env: EnvSpec | None, policy: Policy) -> EnvSpec | None:
    """The env, telling which actions it allows where the policy asks."""
    if env is None or not policy.rule.masked or any(text.partition(":")[0] == MASK_WRAPPER for text in env.wrappers):
        return env
    return replace(env, wrappers=(*env.wrappers, MASK_WRAPPER))


def _check(saved: Saved, policy: Policy, features: int) -> None:
    """Raise RefusedError when network and spaces do not fit, or actions cannot be scaled to their bounds."""
    try:
        check_sizes(policy, features)
    except ValueError as error:
        raise RefusedError(f"{saved.name} does not fit its own spaces", str(error), "") from None
    if policy.rule.squash != "clip" and not policy.rule.bounded:
        raise RefusedError(f"{saved.name}: squashed actions need finite bounds", f"the space is {saved.action}")


def _facts(path: Path, saved: Saved, family: Family, moments: Moments | None) -> dict[str, Any]:
    """Where the agent came from, as JSON values."""
    steps = saved.data.get("num_timesteps")
    return {
        "format": "sb3",
        **({"policy_class": saved.own_class} if saved.own_class else {}),
        "algorithm": family.algorithm(saved),
        "sb3_version": saved.version,
        "timesteps": steps if isinstance(steps, int) else None,
        "total_params": saved.weights.count(),
        "critic_params": _only_the_critics(saved, family),
        "vecnormalize": None if moments is None else moments.sha256,
        "sha256": artifact.sha256(path),
    }


def _only_the_critics(saved: Saved, family: Family) -> int:
    """Numbers that nobody but the critic uses: an extractor it shares is not its own."""
    others = [name for name in saved.weights.state if not name.startswith(family.critic)]
    return saved.weights.count() - saved.weights.count(*others) if others and family.critic else 0
