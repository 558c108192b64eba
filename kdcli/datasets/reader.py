"""A finished dataset: rows by index, chunk or episode, mapped from its files and never held whole in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdcli.datasets import manifest as manifests
from kdcli.datasets import observations, shards
from kdcli.datasets.manifest import Manifest
from kdcli.datasets.shards import Columns, Layout
from kdcli.errors import RefusedError, UsageError
from kdcli.spec import EnvSpec, Space, space_from_json

TEACHER = "teacher."


class Dataset:
    """The rows of every shard, one after the other. Make it with `open`.

    `owner` is whatever must live as long as it does: who removes the folder that it is mapped from.
    """

    owner: object = None

    def __init__(self, folder: Path, manifest: Manifest, parts: Sequence[Columns]) -> None:
        self.folder, self.manifest, self._parts = folder, manifest, parts
        self._starts = np.cumsum([0, *(shard.rows for shard in manifest.shards)])

    @classmethod
    def open(cls, folder: Path | str) -> Dataset:
        """Open a dataset; checks its manifest, and of its shards the lengths and columns (`verify` checks bytes).

        Raises:
            UsageError: there is none, or it is not finished.
            RefusedError: it is damaged.
        """
        folder = Path(folder)
        manifest = manifests.read(folder)
        if not manifest.complete:
            why = f"{len(manifest.shards)} of its {manifest.n_shards} shards are written"
            raise UsageError(f"{folder} is not finished", why, "run the command that began it again")
        found = [shards.map_columns(folder / shard.file, manifest.layout, shard) for shard in manifest.shards]
        return cls(folder, manifest, found)

    def __len__(self) -> int:
        return self.manifest.n_steps

    @property
    def columns(self) -> Layout:
        """What a row holds: name -> dtype and shape."""
        return self.manifest.layout

    @property
    def made(self) -> Mapping[str, Any]:
        """How it was made, as JSON values."""
        return self.manifest.made

    @property
    def env(self) -> EnvSpec:
        """Where it was recorded."""
        return EnvSpec.from_json(self.made["env"])

    @property
    def observation(self) -> Space:
        """The space of one raw observation."""
        return space_from_json(self.made["observation"])

    @property
    def action(self) -> Space:
        """The space of one action."""
        return space_from_json(self.made["action"])

    def gather(self, indices: np.ndarray, names: Sequence[str] | None = None) -> Columns:
        """Rows at `indices` (B,), in any order: name -> array (B, ...); all columns, or those of `names`.

        Raises:
            IndexError: an index below 0 or beyond the last row.
        """
        where = np.asarray(indices, np.int64)
        chosen = {name: self.columns[name] for name in (self.columns if names is None else names)}
        out, part = shards.empty(chosen, len(where)), np.searchsorted(self._starts, where, side="right") - 1
        for index in np.unique(part):
            here = part == index
            rows = where[here] - self._starts[index]
            for name, column in out.items():
                column[here] = self._parts[index][name][rows]
        return out

    def chunks(self, rows: int = 4096, names: Sequence[str] | None = None) -> Iterator[Columns]:
        """The dataset from its first row to its last, `rows` at a time."""
        for start in range(0, len(self), rows):
            yield self.gather(np.arange(start, min(start + rows, len(self))), names)

    def labelled(self, limit: int | None = None) -> tuple[np.ndarray, Columns]:
        """Observations (N, *shape) and the teacher's columns (N, ...): all rows, or `limit` spread evenly over them.

        All rows say where an episode `begins`, too.
        """
        n = min(limit or len(self), len(self))
        names = [name for name in self.columns if name.startswith(TEACHER)]
        found = self.gather(np.arange(n) * len(self) // n, [*observations.names(self.columns), *names, "t"])
        labels = {name.removeprefix(TEACHER): found[name] for name in names}
        if n == len(self):
            labels["begins"] = found["t"] == 0
        return observations.gathered(self.observation, found), labels

    def returns(self) -> np.ndarray:
        """Undiscounted returns (n,) of the episodes that ended, in order."""
        return np.concatenate([shards.finished(part)[0] for part in self._parts])

    def verify(self) -> None:
        """Read every byte.

        Raises:
            RefusedError: a shard is not as it was written.
        """
        for shard in self.manifest.shards:
            if not shards.intact(self.folder, shard):
                why = "its bytes do not match the manifest"
                raise RefusedError(f"{self.folder / shard.file} is damaged", why, "copy or make the dataset again")
