"""One file of a dataset: columns of equal length, written whole and mapped into memory to be read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from kdcli import artifact
from kdcli.errors import RefusedError, UsageError
from kdcli.files import is_file, open_file

Columns = dict[str, np.ndarray]

SCHEMA = 1
_DTYPES = {
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    "BOOL": "bool",
}


@dataclass(frozen=True)
class Column:
    """What a row holds in one column."""

    dtype: str
    shape: tuple[int, ...] = ()

    @property
    def n_bytes(self) -> int:
        """Bytes a row."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize


Layout = Mapping[str, Column]
# What every dataset holds beside observations, actions and what the teacher said.
FIXED: Layout = {
    "behaviour": Column("int8"),
    "reward": Column("float64"),
    "terminated": Column("bool"),
    "truncated": Column("bool"),
    "episode": Column("int64"),
    "t": Column("int32"),
    "seed": Column("int64"),
}


def layout_of(columns: Mapping[str, np.ndarray]) -> dict[str, Column]:
    """The layout of arrays (B, ...)."""
    return {name: Column(array.dtype.name, array.shape[1:]) for name, array in columns.items()}


def empty(layout: Layout, rows: int) -> Columns:
    """Columns (rows, ...) that are yet to be filled."""
    return {name: np.empty((rows, *column.shape), column.dtype) for name, column in layout.items()}


def by_episode(columns: Columns) -> Columns:
    """The same rows with those of an episode together, in the order they have now; replaces `columns` one by one."""
    order = np.argsort(columns["episode"], kind="stable")
    for name in columns:
        columns[name] = columns[name][order]
    return columns


def finished(columns: Columns) -> tuple[np.ndarray, int]:
    """Undiscounted returns (n,) of the episodes that ended, and how many did not; for rows in order of episodes."""
    starts = np.flatnonzero(np.diff(columns["episode"], prepend=-1))
    lasts = np.append(starts[1:], len(columns["episode"])) - 1
    over = columns["terminated"][lasts] | columns["truncated"][lasts]
    return np.add.reduceat(columns["reward"], starts)[over], int((~over).sum())


@dataclass(frozen=True)
class Shard:
    """What the manifest says of a file: `episodes` ended in it with the sum `return_sum`, `cut` did not end."""

    file: str
    rows: int
    episodes: int
    cut: int
    return_sum: float
    size_bytes: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        """JSON values, the inverse of `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Shard:
        """A Shard from JSON values; a wrong kind of value raises KeyError, TypeError or ValueError."""
        whole = {key: int(data[key]) for key in ("rows", "episodes", "cut", "size_bytes")}
        return cls(str(data["file"]), return_sum=float(data["return_sum"]), sha256=str(data["sha256"]), **whole)


def file_name(index: int) -> str:
    """The file of the shard at `index`."""
    return f"shard-{index:05d}.safetensors"


def write(folder: Path, index: int, columns: Columns) -> Shard:
    """Write one shard, whole or not at all; columns are in order of episodes.

    Raises:
        UsageError: a column holds NaN, or the file cannot be written.
    """
    refuse_nan(columns)
    data = artifact.pack({"kind": "shard", "schema": SCHEMA, "index": index}, columns)
    returns, cut = finished(columns)
    path = artifact.write_bytes(folder / file_name(index), data, force=True)
    digest = hashlib.sha256(data).hexdigest()
    return Shard(path.name, len(columns["t"]), len(returns), cut, float(returns.sum()), len(data), digest)


def refuse_nan(columns: Columns) -> None:
    """Raise UsageError for the first NaN, naming the column and where it is."""
    for name, column in columns.items():
        if column.dtype.kind != "f" or not np.isnan(column).any():
            continue
        row = int(np.isnan(column).reshape(len(column), -1).any(1).argmax())
        seed, t = (int(columns[key][row]) for key in ("seed", "t"))
        fix = "check the agent" if name.startswith("teacher.") else "check the env, or record with less --noise"
        raise UsageError(f"NaN in {name}", f"in the episode of seed {seed}, at step {t}", fix)


def intact(folder: Path, shard: Shard) -> bool:
    """Whether the file is there, byte for byte."""
    path = folder / shard.file
    return is_file(path) and path.stat().st_size == shard.size_bytes and artifact.sha256(path) == shard.sha256


def map_columns(path: Path, layout: Layout, shard: Shard) -> Columns:
    """The columns (rows, ...) as views of the file, read-only; only what is touched is read.

    Raises:
        RefusedError: the file is missing, has another length than it should, or other columns.
    """
    if not path.exists():
        raise RefusedError(f"{path} is missing", "the manifest names it", "copy the dataset again, or make it again")
    if path.stat().st_size != shard.size_bytes:
        why = f"it has {path.stat().st_size:,} bytes, not {shard.size_bytes:,}"
        raise RefusedError(f"{path} is damaged", why, "copy it again, or make the dataset again")
    header = artifact.read_header(path)
    try:
        with open_file(path) as handle:
            return _views(np.memmap(handle, np.uint8, mode="r"), header, layout, shard.rows)
    except (KeyError, TypeError, ValueError) as error:
        raise RefusedError(f"{path} is damaged", repr(error), "copy it again, or make the dataset again") from None


def _views(data: np.ndarray, header: Mapping[str, Any], layout: Layout, rows: int) -> Columns:
    body = data.view(np.ndarray)[8 + int.from_bytes(data[:8].tobytes(), "little") :]
    found = {}
    for name, column in layout.items():
        entry, shape = header[name], (rows, *column.shape)
        begin, end = entry["data_offsets"]
        kind = np.dtype(_DTYPES[entry["dtype"]])
        if (kind.name, tuple(entry["shape"])) != (column.dtype, shape) or begin < 0:
            raise ValueError(f"its column {name} is {entry['dtype']} {entry['shape']}")
        found[name] = body[begin:end].view(kind).reshape(shape)
    return found
