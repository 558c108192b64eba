"""The content of a file as bytes, and of a file of torch.save as plain containers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdcli.files import read_bytes

__all__ = ["container", "is_state", "read_bytes"]


def container(path: Path) -> Any:
    """What a file of torch.save holds: plain containers, numbers and tensors.

    Raises:
        UsageError: it cannot be opened.
        RefusedError: it is damaged, or holds other things.
    """
    return _unwrapped(as_saved(path))


def as_saved(path: Path) -> Any:
    """The same with the names of its tensors as they are in the file, wrappers and all.

    Raises:
        UsageError: it cannot be opened.
        RefusedError: it is damaged, or holds other things.
    """
    from kdcli.checkpoints.safe.torch_files import read_torch

    return read_torch(read_bytes(path), path.name)


_COMPILED, _PARALLEL, _AVERAGES = "_orig_mod", "module", "n_averaged"


def unwrapped(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict under the names that its modules have without a wrapper.

    `torch.compile` puts `_orig_mod` before the names inside a module, wherever it is; DataParallel, its distributed kin
    and AveragedModel put `module`, which may be a name of one's own: it goes where every name beside it goes with it.
    """
    names = {name: [part for part in name.split(".") if part != _COMPILED] for name in state if name != _AVERAGES}
    inside: dict[tuple[str, ...], list[str]] = {}
    for parts in names.values():
        for depth in range(len(parts) - 1):
            inside.setdefault(tuple(parts[:depth]), []).append(parts[depth])
    wrapped = {place for place, found in inside.items() if set(found) == {_PARALLEL}}
    bare = {
        name: ".".join(p for i, p in enumerate(parts) if p != _PARALLEL or tuple(parts[:i]) not in wrapped)
        for name, parts in names.items()
    }
    if len(set(bare.values())) != len(bare) or not all(bare.values()):
        return dict(state)
    averaged = {_AVERAGES: state[_AVERAGES]} if _AVERAGES in state and () not in wrapped else {}
    return {**{bare[name]: state[name] for name in bare}, **averaged}


def _unwrapped(value: Any) -> Any:
    """Every state dict in a container."""
    if is_state(value):
        return unwrapped(value)
    if isinstance(value, dict):
        return {name: _unwrapped(item) for name, item in value.items()}
    return type(value)(map(_unwrapped, value)) if type(value) in (list, tuple) else value


def is_state(value: Any) -> bool:
    """Whether a value is a state dict: tensors by name."""
    from torch import Tensor

    named = isinstance(value, dict) and bool(value)
    return named and all(isinstance(name, str) and isinstance(item, Tensor) for name, item in value.items())
