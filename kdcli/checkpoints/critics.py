"""The critics of SAC, TQC, TD3 and DDPG: what an action is worth in a state. They teach values; nobody deploys them."""

from __future__ import annotations

from dataclasses import replace

from kdcli.agents.policy import Network, Policy
from kdcli.checkpoints.sb3.archive import Saved
from kdcli.checkpoints.sb3.extractors import ObservationFeatures, behind, has, input_branches, perceptron_parts
from kdcli.errors import RefusedError, UsageError

_MOST = 64  # critics of one agent


def critics_of(saved: Saved, policy: Policy) -> list[Network]:
    """Networks over the features and the action behind them, in units of its bounds (Stable-Baselines3 scales it so).

    Raises:
        UsageError: the agent has no critics of actions.
        RefusedError: they are not perceptrons, or do not fit.
    """
    weights = saved.weights
    if not has(weights, "critic.qf0.") or not policy.rule.continuous:
        why = f"a {saved.policy_class.rpartition('.')[2]} has no critic of continuous actions beside its actor"
        raise UsageError(f"{saved.name}: --critics finds none", why, "leave --critics out")
    if any(".running_mean" in name for name in weights.state if name.startswith("critic.")):
        raise RefusedError(f"{saved.name}: critics with batch norms are not read yet", "", "leave --critics out")
    found, seen = (
        list[Network](),
        _with_action(input_branches(saved, "critic.features_extractor."), policy.rule.n_outputs),
    )
    while has(weights, f"critic.qf{len(found)}.") and len(found) < _MOST:
        name = f"critic.qf{len(found)}"
        layers = perceptron_parts(weights.linears(name), saved.activation("relu"))
        found.append(behind(seen, layers, f"{weights.what}: {name}"))
    return found


def _with_action(seen: list[ObservationFeatures], n: int) -> list[ObservationFeatures]:
    """What is seen, and behind it an action of `n` numbers, as it is."""
    place, layers = seen[-1]
    if layers:
        return [*seen, (replace(place, start=place.stop, shape=(n,), layers=()), [])]
    return [*seen[:-1], (replace(place, shape=(place.shape[0] + n,)), [])]
