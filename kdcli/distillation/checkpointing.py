"""What is kept of a distillation under way, as named arrays: enough to go on to the same bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

SavedState = dict[str, np.ndarray]


def under(name: str, kept: Mapping[str, np.ndarray]) -> SavedState:
    """The same arrays, their names behind `name.`."""
    return {f"{name}.{key}": array for key, array in kept.items()}


def below(name: str, kept: Mapping[str, np.ndarray]) -> SavedState:
    """The inverse of `under`: those whose names begin so."""
    start = f"{name}."
    return {key.removeprefix(start): array for key, array in kept.items() if key.startswith(start)}


def module_state(module: nn.Module) -> SavedState:
    """Parameters and buffers."""
    return {name: tensor.detach().numpy().copy() for name, tensor in module.state_dict().items()}


def restore_module(module: nn.Module, kept: Mapping[str, np.ndarray]) -> None:
    """Set parameters and buffers in place."""
    module.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in kept.items()})


def adam_state(adam: torch.optim.Optimizer) -> SavedState:
    """Moments and counts of every parameter that has been moved."""
    states = adam.state_dict()["state"]
    return {f"{k}.{name}": value.numpy().copy() for k, state in states.items() for name, value in state.items()}


def restore_adam(adam: torch.optim.Optimizer, kept: Mapping[str, np.ndarray]) -> None:
    """Set moments and counts."""
    states: dict[int, dict[str, Any]] = {}
    for name, array in kept.items():
        index, _, key = name.partition(".")
        value = torch.from_numpy(np.array(array))
        states.setdefault(int(index), {})[key] = value.reshape(()) if key == "step" else value
    adam.load_state_dict({**adam.state_dict(), "state": states})


def generator_state(generator: torch.Generator | np.random.Generator) -> np.ndarray:
    """The state of a source of chance, as bytes."""
    if isinstance(generator, torch.Generator):
        return generator.get_state().numpy().copy()
    return np.frombuffer(json.dumps(generator.bit_generator.state).encode(), np.uint8)


def restore_generator(generator: torch.Generator | np.random.Generator, state: np.ndarray) -> None:
    """Set the state of a source of chance."""
    if isinstance(generator, torch.Generator):
        generator.set_state(torch.from_numpy(np.array(state)))
    else:
        generator.bit_generator.state = json.loads(bytes(state))
