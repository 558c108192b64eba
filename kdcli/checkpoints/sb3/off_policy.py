"""DQN, QR-DQN, SAC, TQC, TD3 and DDPG: the network that acts, without critics and target copies."""

from __future__ import annotations

from kdcli.agents.action import ActionRule
from kdcli.agents.policy import Network, Policy, Spread
from kdcli.checkpoints.assembly import Part
from kdcli.checkpoints.safe.weights import Layer
from kdcli.checkpoints.sb3.actor_critic import spread
from kdcli.checkpoints.sb3.archive import Saved
from kdcli.checkpoints.sb3.extractors import behind, input_branches, perceptron_parts
from kdcli.errors import RefusedError
from kdcli.progress import Listener
from kdcli.spec import Box, Discrete

CRITIC = ("critic.",)
_TARGETS = ("critic_target.", "actor_target.", "q_net_target.", "quantile_net_target.")


def unneeded(_: Saved) -> tuple[str, ...]:
    """Critics, targets, and a network that gSDE once had."""
    return (*CRITIC, *_TARGETS, "actor.sde_features_extractor.")


def td3_algorithm(saved: Saved) -> str:
    """DDPG is TD3 with one critic."""
    return "DDPG" if saved.kwargs.get("n_critics") == 1 else "TD3"


def dqn(saved: Saved, _: Listener) -> Policy:
    """Q-values."""
    return Policy(_network(saved, "q_net", "q_net"), _discrete(saved), "q")


def qrdqn(saved: Saved, _: Listener) -> Policy:
    """Quantiles of the return, (quantiles, A) in that order."""
    quantiles, rule = saved.kwargs.get("n_quantiles", 200), _discrete(saved)
    network = _network(saved, "quantile_net", "quantile_net")
    if type(quantiles) is not int or quantiles < 1 or network.outputs != quantiles * rule.n_outputs:
        raise RefusedError(f"{saved.weights.what}: {network.outputs} outputs", f"not {str(quantiles)[:20]} quantiles")
    return Policy(network, rule, "q", quantiles=quantiles)


def td3(saved: Saved, _: Listener) -> Policy:
    """A deterministic actor; its final tanh is the action rule's."""
    return Policy(_network(saved, "actor", "mu"), squashed(saved, 0.0), "mean")


def sac(saved: Saved, listen: Listener) -> Policy:
    """A Gaussian actor before tanh; with gSDE the mean is clipped first."""
    weights = saved.weights
    mu = mean_layer(saved)
    layers = perceptron_parts([*weights.linears("actor.latent_pi"), mu], saved.activation("relu"))
    network = acting(saved, "actor", layers)
    if has_linear_spread(saved):
        noise = linear_spread(weights.linear("actor.log_std"), mu, weights.what)
        return Policy(network, squashed(saved, 0.0), "mean", noise)
    gsde = spread(saved, "actor.log_std", mu.weight, listen)
    return Policy(network, squashed(saved, clip_mean(saved)), "mean", gsde)


def has_linear_spread(saved: Saved) -> bool:
    """Whether the spread is a layer of its own; gSDE has a matrix."""
    return "actor.log_std" not in saved.weights


def mean_layer(saved: Saved) -> Layer:
    """The layer that gives the mean; with gSDE, what clips it follows in a Sequential."""
    return saved.weights.linear("actor.mu.0" if "actor.mu.0.weight" in saved.weights else "actor.mu")


def linear_spread(layer: Layer, mu: Layer, what: str) -> Spread:
    """The spread that a layer beside `mu` gives."""
    if layer.weight.shape != mu.weight.shape or layer.bias is None:
        raise RefusedError(f"{what}: actor.log_std does not fit actor.mu", f"it is {tuple(layer.weight.shape)}")
    return Spread("linear", layer.weight, layer.bias)


def acting(saved: Saved, module: str, layers: list[Part]) -> Network:
    """The extractor of `module`, then the `layers`."""
    return behind(input_branches(saved, f"{module}.features_extractor."), layers, f"{saved.weights.what}: {module}")


def _network(saved: Saved, module: str, name: str) -> Network:
    layers = saved.weights.linears(f"{module}.{name}")
    return acting(saved, module, perceptron_parts(layers, saved.activation("relu")))


def clip_mean(saved: Saved) -> float:
    """What gSDE clips the mean to, 0 for not at all; not in the weights, 2 unless told otherwise."""
    limit = saved.kwargs.get("clip_mean", 2.0)
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit < float("inf"):
        raise RefusedError(f"{saved.name}: clip_mean is {str(limit)[:40]}", "it must be a number")
    return max(0.0, float(limit))


def _discrete(saved: Saved) -> ActionRule:
    if not isinstance(saved.action, Discrete):
        raise RefusedError(f"{saved.name}: Q-values for {saved.action}", "they need a Discrete action space")
    return ActionRule(saved.action)


def squashed(saved: Saved, limit: float) -> ActionRule:
    """Actions by tanh, after the mean was clipped to `limit` where it is not 0."""
    if not isinstance(saved.action, Box):
        raise RefusedError(f"{saved.name}: a continuous policy for {saved.action}", "it needs a Box action space")
    return ActionRule(saved.action, "tanh", limit)
