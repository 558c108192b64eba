"""PPO, A2C, TRPO, MaskablePPO and RecurrentPPO: an actor and a critic of states side by side."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdcli.agents.action import ActionRule, Squash
from kdcli.agents.policy import Network, Policy, Spread
from kdcli.checkpoints.assembly import Part, cells, linear
from kdcli.checkpoints.safe.weights import Layer, Weights
from kdcli.checkpoints.sb3.archive import Saved
from kdcli.checkpoints.sb3.extractors import ObservationFeatures, behind, has, input_branches, perceptron_parts, same
from kdcli.errors import RefusedError
from kdcli.networks.mlp import MLP
from kdcli.progress import Listener, Note
from kdcli.spec import Box, MultiBinary

CRITIC = ("mlp_extractor.value_net.", "value_net.", "vf_features_extractor.", "lstm_critic.", "critic.")
_SHARED, _ACTORS, _CRITICS = "features_extractor.", "pi_features_extractor.", "vf_features_extractor."


def unneeded(saved: Saved) -> tuple[str, ...]:
    """Second names of the extractors, and a network that gSDE once had."""
    seen_by_both = [_SHARED] if has(saved.weights, _ACTORS) else []
    return ("sde_features_extractor.", *seen_by_both)


def algorithm(saved: Saved) -> str:
    """Which of them it was; only the other settings in the zip tell."""
    if "Maskable" in saved.policy_class:
        return "MaskablePPO"
    if "Recurrent" in saved.policy_class:
        return "RecurrentPPO"
    if "cg_max_steps" in saved.data:
        return "TRPO"
    return "PPO" if "clip_range" in saved.data else "A2C"


@dataclass(frozen=True, eq=False)
class _Half:
    """The actor or the critic: what it sees, what it remembers, and its linear layers."""

    input_branches: list[ObservationFeatures]
    memory: list[Part]
    layers: list[Layer]

    def build(self, activation: str, what: str) -> Network:
        return behind(self.input_branches, [*self.memory, *perceptron_parts(self.layers, activation)], what)


def policy(saved: Saved, listen: Listener) -> Policy:
    """The actor, with its spread (Box only) and its critic of states."""
    weights, masked = saved.weights, algorithm(saved) == "MaskablePPO"
    shared = weights.linears("mlp_extractor.shared_net")  # Stable-Baselines3 before 1.8
    head = weights.linear("action_net")
    if masked and isinstance(saved.action, MultiBinary):
        head = one_logit_a_bit(head)
    layers = [*shared, *weights.linears("mlp_extractor.policy_net"), head]
    actor = _Half(input_branches(saved, _prefix(weights, _ACTORS)), _lstm(weights, "lstm_actor"), layers)
    network = actor.build(saved.activation("tanh"), weights.what)
    value = _critic(saved, actor, shared, network)
    if not isinstance(saved.action, Box):
        return Policy(network, ActionRule(saved.action, masked=masked), "logits", value=value)
    rule = ActionRule(saved.action, _squash(saved))
    return Policy(network, rule, "mean", spread(saved, "log_std", head.weight, listen), value)


def _squash(saved: Saved) -> Squash:
    """How the mean becomes an action.

    `squash_output` puts a tanh into the distribution of gSDE alone. Without it, which was accepted until 2.1, `predict`
    and training scale what was never squashed, and clip nothing.
    """
    if not saved.flag("squash_output"):
        return "clip"
    return "tanh" if saved.data.get("use_sde") else "linear"


def _prefix(weights: Weights, own: str) -> str:
    """What the names of an extractor's tensors begin with; before 1.7 there was one for both."""
    return own if has(weights, own) else _SHARED


def _lstm(weights: Weights, prefix: str) -> list[Part]:
    """The layers of an LSTM; none where there is nothing."""
    found = cells(weights, prefix)
    if any(cell.kind != "lstm_cell" for cell in found):
        raise RefusedError(f"{weights.what}: {prefix} is not an LSTM", "RecurrentPPO has no other memory")
    return found


def _memory(weights: Weights, actor: _Half) -> list[Part]:
    """The critic's own LSTM, the linear layer it has instead, or else what the actor has."""
    own = _lstm(weights, "lstm_critic")
    if own or "critic.weight" not in weights:
        return own or actor.memory
    return [linear(weights.linear("critic"))]


def _critic(saved: Saved, actor: _Half, shared: list[Layer], network: Network) -> Network | nn.Linear:
    """The critic; one layer on the actor's where all before it is the actor's, too."""
    weights, name = saved.weights, f"{saved.weights.what}: the critic"
    layers = [*shared, *weights.linears("mlp_extractor.value_net"), weights.linear("value_net")]
    critic = _Half(input_branches(saved, _prefix(weights, _CRITICS)), _memory(weights, actor), layers)
    if not isinstance(network, MLP) and _is_one_layer(weights, actor, critic):
        value: Network | nn.Linear = _linear(layers[-1])
        shape = (value.in_features, value.out_features)
        fits = shape == (network.head.in_features, 1)
    else:
        value = critic.build(saved.activation("tanh"), name)
        shape = (value.inputs, value.outputs)
        fits = shape == (network.inputs, 1)
    if not fits:
        raise RefusedError(f"{name} does not fit", f"it maps {shape[0]} to {shape[1]}")
    return value


def _is_one_layer(weights: Weights, actor: _Half, critic: _Half) -> bool:
    """Whether the critic is one layer on the last hidden layer of the actor."""
    one_sight = same(weights, _prefix(weights, _ACTORS), _prefix(weights, _CRITICS))
    return one_sight and critic.memory is actor.memory and len(critic.layers) == len(actor.layers) == 1


def _linear(layer: Layer) -> nn.Linear:
    with torch.device("meta"):
        module = nn.Linear(layer.weight.shape[1], len(layer.weight), layer.bias is not None)
    module.weight = nn.Parameter(layer.weight)
    module.bias = None if layer.bias is None else nn.Parameter(layer.bias)  # type: ignore[assignment]
    return module


def one_logit_a_bit(layer: Layer) -> Layer:
    """A layer of two logits a bit, for 0 and for 1, as one of their differences: the same probabilities."""
    if layer.bias is None or len(layer.bias) % 2:
        raise RefusedError(f"{layer.name} is not a layer of two logits a bit", f"its weight is {layer.weight.shape}")
    return Layer(layer.name, layer.weight[1::2] - layer.weight[::2], layer.bias[1::2] - layer.bias[::2])


def spread(saved: Saved, name: str, head: Tensor, listen: Listener) -> Spread | None:
    """The spread that the tensor `name` describes: (A,) constant, (latent, A) or (latent, 1) gSDE.

    `head` is the weight (A, latent) of the layer that gives the mean.
    """
    log_std, (n_actions, latent) = saved.weights.take(name), head.shape
    if log_std.shape == (n_actions,):
        return Spread("constant", log_std)
    if any("sde_features_extractor." in key for key in saved.weights.state):
        listen(Note("its exploration noise has a network of its own, which is left out: it will act without noise"))
        return None
    if log_std.shape not in ((latent, n_actions), (latent, 1)):
        raise RefusedError(f"{saved.weights.what}: {name} has shape {tuple(log_std.shape)}", "no spread kdcli knows")
    std = log_of_expln(log_std) if saved.flag("use_expln") else log_std
    return Spread("gsde", std.expand(latent, n_actions).contiguous())


def log_of_expln(log_std: Tensor) -> Tensor:
    """log(expln(x)), where expln is exp below zero and log(1 + x) + 1 above (Raffin et al. 2021)."""
    above = torch.log(torch.log1p(log_std.clamp(min=0.0) + 1e-6) + 1.0)
    return torch.where(log_std > 0, above, log_std)
