"""skrl's `agent_<step>.pt` and `best_agent.pt`, from skrl 1.0 to 2.1: a dictionary of state dicts.

`policy` (or `q_network`) holds the layers in the order they are used: `<name>_container.*` or `net.*`, then
`policy_layer`, `mean_layer` or `output_layer`, and `log_std_parameter` of a Gaussian; a model shared with the critic
has `value_layer` too. `state_preprocessor` (1.x) or `observation_preprocessor` (2.x) holds running statistics:
clip((x - mean) / (sqrt(variance) + 1e-8), -5, 5); its epsilon and limit are defaults that no file tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.observation import Normalizer
from kdcli.agents.policy import Policy, Signal, Spread
from kdcli.checkpoints import assembly
from kdcli.checkpoints.build_agent import finish
from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.safe.containers import container, is_state
from kdcli.checkpoints.safe.weights import Weights
from kdcli.checkpoints.user_hints import (
    Convention,
    Place,
    Statistics,
    activations,
    find_place,
    no_env,
    preprocess,
    squash,
    statistics,
)
from kdcli.errors import RefusedError
from kdcli.progress import Listener, Note
from kdcli.spec import Box, Part, box

EPSILON, CLIP = 1e-8, 5.0
LOG_STD = "log_std_parameter"
_VALUE = "value_layer."
_ACTORS = ("policy", "q_network")
_STATISTICS = ("observation_preprocessor", "state_preprocessor")


def is_skrl(saved: Any) -> bool:
    """Whether a container is one of skrl's."""
    return isinstance(saved, dict) and any(is_state(saved.get(name)) for name in _ACTORS)


def read(path: Path, config: LoadConfig, listen: Listener) -> Agent:
    """The agent in the file at `path`.

    Without an env, a Gaussian policy observes as many numbers as its network reads, and its actions have no bounds.

    Raises:
        UsageError: activation, env or squashing are not named, or the env does not fit.
        RefusedError: it is damaged, or holds a network kdcli does not read.
    """
    saved = container(path)
    role = next(name for name in _ACTORS if is_state(saved.get(name)))
    weights = Weights(saved[role], f"{path.name}: {role}")
    parts = layers(weights, config, path.name)
    n_inputs = int(parts[0].tensors.get("weight", parts[0].tensors.get("weight_ih")).shape[1])  # type: ignore[union-attr]
    place = find_place(path, config, n_inputs, listen)
    action = _action(place, weights, path.name, listen)
    weights.refuse_leftovers((_VALUE, LOG_STD))
    known = _statistics(saved, config, path.name, listen)
    sees = preprocess(place.observation if place else box((n_inputs,)), known.normalizer, path.name)
    rule = ActionRule(action, squash(config, action, path.name))
    signal: Signal = "q" if role == "q_network" else "mean" if isinstance(action, Box) else "logits"
    network = assembly.network((n_inputs,), parts, path.name)
    policy = Policy(network, rule, signal, _spread(weights, rule))
    return finish(path, sees, policy, place.env if place else None, {**_facts(saved, role), "obs_stats": known.sha256})


def layers(weights: Weights, config: LoadConfig, what: str) -> list[assembly.Part]:
    """Every layer of the policy, in the order of the file; an activation stands between any two of them."""
    names = [name for name in weights.state if not name.startswith(_VALUE) and name != LOG_STD]
    groups = list(dict.fromkeys(name.partition(".")[0] for name in names))
    n_linear = sum(name.endswith(".weight") and weights.state[name].ndim == 2 for name in names)
    given = iter(activations(config, n_linear - 1, what, "elu"))
    parts: list[assembly.Part] = []
    for group in groups:
        found = _group(weights, group, given)
        if parts and parts[-1].kind == "linear":
            parts.append(assembly.activation(next(given, "identity")))
        parts += found
    if not parts:
        raise RefusedError(f"{what} has no layers", "it is not a policy kdcli knows")
    return parts


def _group(weights: Weights, group: str, given: Any) -> list[assembly.Part]:
    """One module of the model: a GRU or LSTM, a single layer, or a sequence."""
    if f"{group}.weight_ih_l0" in weights:
        return assembly.cells(weights, group)
    if f"{group}.weight" in weights:
        return [assembly.one(weights, group)]
    return assembly.sequential(weights, group, given)


def _action(place: Place | None, weights: Weights, what: str, listen: Listener) -> Part:
    if place is not None:
        return place.action
    if LOG_STD not in weights:
        raise no_env(what)
    size = weights.state[LOG_STD].numel()
    listen(Note(f"without --env, {what} is taken to act by {size} real numbers without bounds"))
    return box((size,))


def _statistics(saved: Mapping[str, Any], config: LoadConfig, what: str, listen: Listener) -> Statistics:
    """Those that `--obs-stats` names, else those in the file."""
    kept = next((saved[name] for name in _STATISTICS if saved.get(name)), None)
    if config.obs_stats is not None or kept is None:
        return statistics(config, Convention(EPSILON, CLIP, beside=True))
    if not is_state(kept):
        raise RefusedError(
            f"{what}: its preprocessor is not skrl's",
            "a RunningStandardScaler is read",
            "--obs-stats x.npz (mean, var), or none",
        )
    mean, variance = (_float64(kept, key, what) for key in ("running_mean", "running_variance"))
    listen(Note(f"observations are normalised with skrl's defaults, epsilon {EPSILON:g} and a clip at {CLIP:g}"))
    return Statistics(Normalizer(mean, np.sqrt(variance) + EPSILON, CLIP))


def _float64(state: Mapping[str, Any], name: str, what: str) -> np.ndarray:
    """Statistics are kept in float64, weights never are."""
    tensor = state.get(name)
    if tensor is None or tensor.ndim != 1 or not torch.isfinite(tensor).all() or ((tensor < 0).any() and "var" in name):
        raise RefusedError(f"{what}: {name} is not a statistic", "it is missing, damaged, or of another preprocessor")
    return tensor.double().numpy()


def _spread(weights: Weights, rule: ActionRule) -> Spread | None:
    """The spread that is added to the mean; where the mean is squashed first, kdcli's rule has no such noise."""
    if LOG_STD not in weights or rule.squash == "tanh" or not rule.continuous:
        return None
    return Spread("constant", weights.take(LOG_STD).reshape(-1).clamp(-20.0, 2.0))


def _facts(saved: Mapping[str, Any], role: str) -> dict[str, Any]:
    """Where the agent came from, as JSON values."""
    models: Sequence[Mapping[str, Any]] = [s for name, s in saved.items() if is_state(s) and "preprocessor" not in name]
    return {
        "format": "skrl",
        "algorithm": "DQN" if role == "q_network" else _algorithm(saved),
        "total_params": sum(t.numel() for state in models for t in state.values()),
        "critic_params": None,
    }


def _algorithm(saved: Mapping[str, Any]) -> str:
    """The family that keeps such a set of networks."""
    if "critic_2" in saved:
        return "TD3" if "target_policy" in saved else "SAC"
    return "DDPG" if "critic" in saved else "PPO, A2C, TRPO or RPO"
