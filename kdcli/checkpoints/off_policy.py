"""DQN, QR-DQN, SAC, TQC, TD3 and DDPG: the network that acts, without critics and target copies."""

from __future__ import annotations

from kdcli.agents.action import ActionRule
from kdcli.agents.policy import Policy, Spread
from kdcli.checkpoints.actor_critic import spread
from kdcli.checkpoints.saved import Saved
from kdcli.checkpoints.weights import perceptron
from kdcli.errors import RefusedError
from kdcli.networks.mlp import MLP
from kdcli.progress import Listener
from kdcli.spec import Box, Discrete

CRITIC = ("critic.",)
_TARGETS = ("critic_target.", "actor_target.", "q_net_target.", "quantile_net_target.")
UNNEEDED = (*CRITIC, *_TARGETS, "actor.sde_features_extractor.")


def td3_algorithm(saved: Saved) -> str:
    """DDPG is TD3 with one critic."""
    return "DDPG" if saved.kwargs.get("n_critics") == 1 else "TD3"


def dqn(saved: Saved, _: Listener) -> Policy:
    """Q-values."""
    return Policy(_network(saved, "q_net.q_net"), _discrete(saved), "q")


def qrdqn(saved: Saved, _: Listener) -> Policy:
    """Quantiles of the return, (quantiles, A) in that order."""
    quantiles, rule = saved.kwargs.get("n_quantiles", 200), _discrete(saved)
    network = _network(saved, "quantile_net.quantile_net")
    if type(quantiles) is not int or quantiles < 1 or network.outputs != quantiles * rule.n_outputs:
        raise RefusedError(f"{saved.weights.what}: {network.outputs} outputs", f"not {str(quantiles)[:20]} quantiles")
    return Policy(network, rule, "q", quantiles=quantiles)


def td3(saved: Saved, _: Listener) -> Policy:
    """A deterministic actor; its final tanh is the action rule's."""
    return Policy(_network(saved, "actor.mu"), _squashed(saved, 0.0), "mean")


def sac(saved: Saved, listen: Listener) -> Policy:
    """A Gaussian actor before tanh; with gSDE the mean is clipped first."""
    weights, gsde = saved.weights, "actor.log_std" in saved.weights
    mu = weights.linear("actor.mu.0" if "actor.mu.0.weight" in weights else "actor.mu")
    network = perceptron([*weights.linears("actor.latent_pi"), mu], saved.activation("relu"), weights.what)
    if gsde:
        return Policy(
            network, _squashed(saved, _clip_mean(saved)), "mean", spread(saved, "actor.log_std", mu.weight, listen)
        )
    layer = weights.linear("actor.log_std")
    if layer.weight.shape != mu.weight.shape or layer.bias is None:
        raise RefusedError(f"{weights.what}: actor.log_std does not fit actor.mu", f"it is {tuple(layer.weight.shape)}")
    return Policy(network, _squashed(saved, 0.0), "mean", Spread("linear", layer.weight, layer.bias))


def _network(saved: Saved, prefix: str) -> MLP:
    return perceptron(saved.weights.linears(prefix), saved.activation("relu"), f"{saved.weights.what}: {prefix}")


def _clip_mean(saved: Saved) -> float:
    """What gSDE clips the mean to, 0 for not at all; not in the weights, 2 unless told otherwise."""
    limit = saved.kwargs.get("clip_mean", 2.0)
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit < float("inf"):
        raise RefusedError(f"{saved.name}: clip_mean is {str(limit)[:40]}", "it must be a number")
    return max(0.0, float(limit))


def _discrete(saved: Saved) -> ActionRule:
    if not isinstance(saved.action, Discrete):
        raise RefusedError(f"{saved.name}: Q-values for {saved.action}", "they need a Discrete action space")
    return ActionRule(saved.action)


def _squashed(saved: Saved, limit: float) -> ActionRule:
    if not isinstance(saved.action, Box):
        raise RefusedError(f"{saved.name}: a continuous policy for {saved.action}", "it needs a Box action space")
    return ActionRule(saved.action, "tanh", limit)
