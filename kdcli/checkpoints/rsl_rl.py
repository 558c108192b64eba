"""rsl_rl's `model_<iteration>.pt`, of all its generations.

1 and 2     {model_state_dict: actor.*, critic.*, std | log_std, memory_a.rnn.*}, statistics beside it in
            obs_norm_state_dict; or student.*, teacher.*, memory_s.rnn.* of a distillation
3           the same, statistics inside: actor_obs_normalizer.*, student_obs_normalizer.*
4 and 5     {actor_state_dict | student_state_dict: mlp.*, rnn.rnn.*, obs_normalizer.*, std | distribution.std_param}

Read from rsl_rl 2.1 to 5.5. The policy is its mean, (x - mean) / (std + 0.01) before the network; actions are neither
squashed nor scaled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.observation import Normalizer
from kdcli.agents.policy import Policy, Spread
from kdcli.checkpoints import assembly
from kdcli.checkpoints.build_agent import finish
from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.safe.containers import container, is_state
from kdcli.checkpoints.safe.weights import Layer, Weights
from kdcli.checkpoints.user_hints import Convention, activations, find_place, preprocess, statistics
from kdcli.errors import RefusedError, UsageError
from kdcli.progress import Listener, Note
from kdcli.spec import Box, Part, Space, box

EPSILON = 1e-2
_OWN = ("actor_state_dict", "student_state_dict")


@dataclass(frozen=True, eq=False)
class Layout:
    """Where a generation keeps the parts of its actor; `critic` are prefixes of what does not act."""

    weights: Weights
    mlp: str
    memory: str
    normalizer: str
    critic: tuple[str, ...] = ()
    beside: Mapping[str, Tensor] | None = None


def is_rsl_rl(saved: Any) -> bool:
    """Whether a container is one of rsl_rl's."""
    if not isinstance(saved, dict):
        return False
    inside = saved.get("model_state_dict")
    old = is_state(inside) and any(name.startswith(("actor.", "student.")) for name in inside or ())
    return old or any(is_state(saved.get(name)) for name in _OWN)


def layout(saved: Mapping[str, Any], what: str) -> Layout:
    """The parts of the actor that was saved; of a distillation, the student's."""
    own = next((name for name in _OWN if is_state(saved.get(name))), None)
    if own is not None:
        return Layout(Weights(saved[own], f"{what}: {own}"), "mlp", "rnn.rnn", "obs_normalizer")
    weights = Weights(saved["model_state_dict"], f"{what}: model_state_dict")
    student = any(name.startswith("student.") for name in weights.state)
    role, other = ("student", "teacher") if student else ("actor", "critic")
    unused = (f"{other}.", f"{other}_obs_normalizer.", "memory_t." if student else "memory_c.")
    beside = saved.get("obs_norm_state_dict")
    return Layout(weights, role, f"memory_{role[0]}.rnn", f"{role}_obs_normalizer", unused, beside)


def read(path: Path, config: LoadConfig, listen: Listener) -> Agent:
    """The agent in the file at `path`.

    Without an env, its observations are as many numbers as the network reads, and its actions have no bounds: so rsl_rl
    itself takes them.

    Raises:
        UsageError: the activation is not named, or the env does not fit.
        RefusedError: it is damaged, or holds a network kdcli does not read.
    """
    saved = container(path)
    found = layout(saved, path.name)
    weights = found.weights
    memory = assembly.cells(weights, found.memory)
    n_hidden = sum(name.startswith(f"{found.mlp}.") and name.endswith(".weight") for name in weights.state) - 1
    names = activations(config, n_hidden, path.name, "elu")
    actor = assembly.sequential(weights, found.mlp, names)
    n_inputs = _inputs([*memory, *actor], path.name)
    place = find_place(path, config, n_inputs, listen)
    action = _action(place.action if place else None, weights, actor, path.name, listen)
    actor[-1] = _means(actor[-1], action, config, path.name)
    told = None if config.obs_stats is None else statistics(config, Convention(EPSILON, beside=True))
    normalizer = _normalizer(found, path.name) if told is None else told.normalizer
    sees = preprocess(place.observation if place else box((n_inputs,)), normalizer, path.name)
    network = assembly.network((n_inputs,), [*memory, *actor], path.name)
    spread = _spread(weights, action)
    weights.refuse_leftovers((*found.critic, found.normalizer))
    policy = Policy(network, ActionRule(action), "mean", spread)
    facts = {**_facts(saved, found), "obs_stats": None if told is None else told.sha256}
    return finish(path, sees, policy, place.env if place else None, facts)


def _inputs(parts: list[assembly.Part], what: str) -> int:
    """How many numbers the first layer reads."""
    first = parts[0].tensors.get("weight", parts[0].tensors.get("weight_ih")) if parts else None
    if first is None or first.ndim != 2:
        raise RefusedError(f"{what} has no actor that kdcli reads", "a perceptron, or a GRU or LSTM before one", "")
    return int(first.shape[1])


def _std(weights: Weights) -> str | None:
    """The name of the tensor of standard deviations, where they do not depend on the state."""
    names = ("std", "log_std", "distribution.std_param", "distribution.log_std_param")
    return next((name for name in names if name in weights), None)


def _action(space: Part | None, weights: Weights, actor: list[assembly.Part], what: str, listen: Listener) -> Box:
    if isinstance(space, Box):
        return space
    if space is not None:
        raise UsageError(
            f"{what} gives real actions", f"the env takes {space}", "name the env it was trained on: --env"
        )
    name = _std(weights)
    size = actor[-1].outputs if name is None else weights.state[name].numel()
    listen(Note(f"without --env, {what} is taken to act by {size} real numbers without bounds"))
    return box((size,))


def _means(head: assembly.Part, action: Box, config: LoadConfig, what: str) -> assembly.Part:
    """The head that gives means, also where it gives two numbers an action: mean and spread, or something else."""
    n = int(np.prod(action.shape))
    if head.outputs != 2 * n:
        return head
    if config.signal != "mean":
        why = "mean and spread of a Gaussian, or the two parameters of a Beta distribution: the weights are the same"
        raise UsageError(f"{what} gives two numbers for each action", why, "--signal mean if it is a Gaussian")
    return assembly.linear(Layer(what, head.tensors["weight"][:n], head.tensors["bias"][:n]))


def _normalizer(found: Layout, what: str) -> Normalizer | None:
    state, prefix = found.weights.state, f"{found.normalizer}."
    if found.beside is not None:
        state, prefix = found.beside, ""
    if f"{prefix}_mean" not in state:
        return None
    kept = Weights(state, f"{what}: statistics")
    mean, std = (kept.take(f"{prefix}{key}").double().reshape(-1).numpy() for key in ("_mean", "_std"))
    return Normalizer(mean, std + EPSILON, np.inf)


def _spread(weights: Weights, action: Space) -> Spread | None:
    name = _std(weights)
    if name is None:
        return None
    given = weights.take(name).reshape(-1)
    if given.numel() != int(np.prod(action.shape)):
        raise RefusedError(f"{weights.what}: {name} does not fit the actions", f"{given.numel()} for {action}")
    return Spread("constant", given if "log" in name else torch.log(given.clamp(min=1e-6)))


def _facts(saved: Mapping[str, Any], found: Layout) -> dict[str, Any]:
    """Where the agent came from, as JSON values."""
    states = [state for name, state in saved.items() if name.endswith("state_dict") and is_state(state)]
    total = sum(t.numel() for state in states for t in state.values() if t.is_floating_point())
    iteration = saved.get("iter")
    return {
        "format": "rsl_rl",
        "algorithm": "Distillation" if "student" in found.mlp or "student_state_dict" in saved else "PPO",
        "iteration": iteration if type(iteration) is int else None,
        "total_params": total,
        "critic_params": None,
    }
