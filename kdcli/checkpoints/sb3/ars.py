"""ARS: a linear map or an MLP found by random search."""

from __future__ import annotations

from kdcli.agents.action import ActionRule
from kdcli.agents.policy import Policy
from kdcli.checkpoints.safe.weights import perceptron
from kdcli.checkpoints.sb3.archive import Saved
from kdcli.progress import Listener
from kdcli.spec import Box


def policy(saved: Saved, _: Listener) -> Policy:
    """The actor. A linear one clips its actions, an MLP squashes them, unless the file says otherwise."""
    weights = saved.weights
    old = "action_net.weight" in weights  # sb3-contrib 1.3
    layers = [weights.linear("action_net")] if old else weights.linears("action_net")
    network = perceptron(layers, saved.activation("relu"), weights.what)
    if not isinstance(saved.action, Box):
        return Policy(network, ActionRule(saved.action), "logits")
    squash = saved.flag("squash_output", default=not saved.policy_class.endswith(".ARSLinearPolicy"))
    return Policy(network, ActionRule(saved.action, "tanh" if squash else "clip"), "mean")
