"""PPO, A2C, TRPO and MaskablePPO: an actor and a critic of states side by side."""

from __future__ import annotations

import torch
from torch import Tensor

from kdcli.agents.action import ActionRule
from kdcli.agents.policy import Policy, Spread
from kdcli.checkpoints.saved import Saved
from kdcli.checkpoints.weights import Layer, perceptron
from kdcli.errors import RefusedError
from kdcli.progress import Listener, Note
from kdcli.spec import Box, MultiBinary

CRITIC = ("mlp_extractor.value_net.", "value_net.")
UNNEEDED = ("sde_features_extractor.",)


def algorithm(saved: Saved) -> str:
    """Which of them it was; only the other settings in the zip tell."""
    if "Maskable" in saved.policy_class:
        return "MaskablePPO"
    if "cg_max_steps" in saved.data:
        return "TRPO"
    return "PPO" if "clip_range" in saved.data else "A2C"


def policy(saved: Saved, listen: Listener) -> Policy:
    """The actor, with its spread (Box only) and its critic of states."""
    weights, name = saved.weights, saved.activation("tanh")
    shared = weights.linears("mlp_extractor.shared_net")  # Stable-Baselines3 before 1.8
    head = weights.linear("action_net")
    if algorithm(saved) == "MaskablePPO":
        listen(Note("MaskablePPO chooses among the actions a mask allows; here it will choose among all"))
        head = one_logit_a_bit(head) if isinstance(saved.action, MultiBinary) else head
    actor = [*shared, *weights.linears("mlp_extractor.policy_net"), head]
    critic = [*shared, *weights.linears("mlp_extractor.value_net"), weights.linear("value_net")]
    network = perceptron(actor, name, weights.what)
    value = perceptron(critic, name, f"{weights.what}: the critic")
    if (value.inputs, value.outputs) != (network.inputs, 1):
        raise RefusedError(f"{weights.what}: the critic does not fit", f"it maps {value.inputs} to {value.outputs}")
    if not isinstance(saved.action, Box):
        return Policy(network, ActionRule(saved.action), "logits", value=value)
    rule = ActionRule(saved.action, "tanh" if saved.flag("squash_output") else "clip")
    return Policy(network, rule, "mean", spread(saved, "log_std", actor[-1].weight, listen), value)


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
