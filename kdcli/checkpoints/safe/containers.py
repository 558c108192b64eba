"""The content of a file as bytes, and of a file of torch.save as plain containers."""

from __future__ import annotations

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
    from kdcli.checkpoints.safe.torch_files import read_torch

    return read_torch(read_bytes(path), path.name)


def is_state(value: Any) -> bool:
    """Whether a value is a state dict: tensors by name."""
    from torch import Tensor

    named = isinstance(value, dict) and bool(value)
    return named and all(isinstance(name, str) and isinstance(item, Tensor) for name, item in value.items())
