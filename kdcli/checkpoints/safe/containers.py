"""The content of a file as bytes, and of a file of torch.save as plain containers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdcli.errors import RefusedError, UsageError

MAX_FILE = 2**29


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        UsageError: it cannot be opened.
        RefusedError: it is larger than half a gigabyte.
    """
    try:
        with path.open("rb") as handle:
            # A device tells no size, a file may tell another than it has.
            content = b"" if path.stat().st_size > MAX_FILE else handle.read(MAX_FILE + 1)
            too_large = path.stat().st_size > MAX_FILE or len(content) > MAX_FILE
    except OSError as error:
        raise UsageError(f"cannot read {path}", error.strerror or str(error), "check the path") from None
    if too_large:
        raise RefusedError(f"{path.name} is too large", f"more than {MAX_FILE} bytes")
    return content


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
