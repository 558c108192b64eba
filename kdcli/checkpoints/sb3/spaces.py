"""Pickled spaces of gym and gymnasium, any generation, as kdcli's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np

from kdcli.checkpoints.safe.arrays import Array, DType
from kdcli.checkpoints.safe.pickles import Global, Record
from kdcli.errors import RefusedError
from kdcli.spec import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Part, Space, n_features

MAX_FEATURES = 2**24
_READ = "known: Box, Discrete, MultiDiscrete, MultiBinary, Dict"


def to_space(record: Any, what: str) -> Space:
    """The space that the pickled `record` describes; `what` names it in errors.

    Stable-Baselines3 counts from 0 whatever the `start` of a discrete space, so the start is left out.

    Raises:
        RefusedError: a kind kdcli does not read, or not a space at all.
    """
    try:
        return _dict(record.state) if _kind(record) == "Dict" else _part(record, what)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise RefusedError(
            f"{what} cannot be read", str(error) or repr(error), "export the policy to ONNX where it was trained"
        ) from None


def _part(record: Any, what: str) -> Part:
    kind = _kind(record)
    if kind not in _READERS:
        raise RefusedError(
            f"{what} is a {kind or 'thing without a name'}, not read yet",
            _READ,
            "export the policy to ONNX where it was trained",
        )
    return _READERS[kind](record.state)


def _dict(state: Mapping[str, Any]) -> Dict:
    """A Dict of spaces, in its own order: that of the features."""
    spaces = state["spaces"]
    if not isinstance(spaces, dict) or not spaces or not all(isinstance(name, str) and name for name in spaces):
        raise ValueError("a Dict of no spaces by name")
    space = Dict({name: _part(part, f"the part {name[:40]!r}") for name, part in spaces.items()})
    if n_features(space) > MAX_FEATURES:
        raise ValueError("more numbers than kdcli reads")
    return space


def _kind(record: Any) -> str:
    """`Box` for gym.spaces.box.Box; nothing for what is not a space."""
    if not isinstance(record, Record) or not isinstance(record.state, Mapping):
        return ""
    called = record.called
    return called.name if called.module.split(".")[:2] in (["gym", "spaces"], ["gymnasium", "spaces"]) else ""


def _first(state: Mapping[str, Any], *names: str) -> Any:
    """The first of `names` that is set: old versions wrote `shape`, newer ones `_shape`."""
    return next((state[name] for name in names if state.get(name) is not None), None)


def _numbers(value: Any) -> np.ndarray:
    if not isinstance(value, Array) or value.value is None:
        raise ValueError("an array is missing")
    return value.value


def _dtype(value: Any, default: np.dtype) -> np.dtype:
    match value:
        case DType():
            return value.numpy().newbyteorder("=")
        case Global(module="numpy", name=name):
            return np.dtype(name)
    return default


def _box(state: Mapping[str, Any]) -> Box:
    low, high = _numbers(state["low"]), _numbers(state["high"])
    dtype = _dtype(state.get("dtype"), low.dtype)
    if not low.shape == high.shape or not 0 < low.size <= MAX_FEATURES:
        raise ValueError(f"bounds of shapes {low.shape} and {high.shape}")
    if np.isnan(low).any() or np.isnan(high).any():
        raise ValueError("a bound is not a number")
    with np.errstate(all="ignore"):  # bounds outside what the dtype can hold
        return Box(low.shape, dtype.name, low.astype(dtype), high.astype(dtype))


def _count(value: Any) -> int:
    """A positive number of choices or bits."""
    if isinstance(value, Array):
        value = _numbers(value).tolist()
    if type(value) is not int or not 0 < value <= MAX_FEATURES:
        raise ValueError(f"{str(value)[:40]} is not a number of choices")
    return value


def _discrete(state: Mapping[str, Any]) -> Discrete:
    return Discrete(_count(state["n"]))


def _multi_discrete(state: Mapping[str, Any]) -> MultiDiscrete:
    counts = _numbers(state["nvec"])
    if counts.ndim != 1 or counts.size == 0:
        raise ValueError(f"a MultiDiscrete of {counts.ndim} axes")
    nvec = tuple(_count(n) for n in counts.tolist())
    if sum(nvec) > MAX_FEATURES:
        raise ValueError("more choices than kdcli reads")
    return MultiDiscrete(nvec)


def _multi_binary(state: Mapping[str, Any]) -> MultiBinary:
    shape = _first(state, "_shape", "shape")
    if not isinstance(shape, tuple):
        return MultiBinary(_count(state["n"]))
    dims = tuple(map(_count, shape))
    return MultiBinary(_count(prod(dims)), dims=None if len(dims) == 1 else dims)


_READERS: dict[str, Callable[[Mapping[str, Any]], Part]] = {
    "Box": _box,
    "Discrete": _discrete,
    "MultiDiscrete": _multi_discrete,
    "MultiBinary": _multi_binary,
}
