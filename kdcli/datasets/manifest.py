"""What a dataset is and how far it has come: one small file beside the shards, the only truth about them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kdcli import artifact
from kdcli.datasets import observations
from kdcli.datasets.shards import FIXED, SCHEMA, Column, Layout, Shard, file_name
from kdcli.errors import RefusedError, UsageError
from kdcli.files import MAX_RECORDS, read_json
from kdcli.spec import EnvSpec, space_from_json

FILE = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """A dataset of `n_steps` rows, `shard_rows` in each shard but the last; `shards` are those written so far.

    `made` says, in JSON values, how it is made: equal `made`, equal bytes.
    """

    made: Mapping[str, Any]
    n_steps: int
    shard_rows: int
    layout: Layout
    shards: tuple[Shard, ...] = ()

    @property
    def n_shards(self) -> int:
        """How many shards it takes."""
        return -(-self.n_steps // self.shard_rows)

    @property
    def complete(self) -> bool:
        """Whether all shards are there."""
        return len(self.shards) == self.n_shards

    @property
    def n_episodes(self) -> int:
        """Episodes that ended."""
        return sum(shard.episodes for shard in self.shards)

    @property
    def n_cut(self) -> int:
        """Episodes that were running when their shard was full."""
        return sum(shard.cut for shard in self.shards)

    @property
    def mean_return(self) -> float | None:
        """Mean undiscounted return of the episodes that ended; None when none did."""
        return sum(shard.return_sum for shard in self.shards) / self.n_episodes if self.n_episodes else None

    def rows_of(self, index: int) -> int:
        """Rows of the shard at `index`."""
        return min(self.shard_rows, self.n_steps - index * self.shard_rows)

    def plan(self) -> dict[str, Any]:
        """What is settled before the first row is recorded, as JSON values."""
        columns = {name: {"dtype": c.dtype, "shape": list(c.shape)} for name, c in self.layout.items()}
        plan = {"n_steps": self.n_steps, "shard_rows": self.shard_rows, "columns": columns, "made": dict(self.made)}
        return json.loads(json.dumps(plan, allow_nan=False))

    def to_json(self) -> dict[str, Any]:
        """JSON values, with a digest of themselves; the inverse of `from_json`."""
        content = {
            "kind": "dataset",
            "schema": SCHEMA,
            "complete": self.complete,
            "n_episodes": self.n_episodes,
            "n_cut": self.n_cut,
            "mean_return": self.mean_return,
            **self.plan(),
            "shards": [shard.to_json() for shard in self.shards],
        }
        return {**content, "sha256": _digest(content)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Manifest:
        """A Manifest from JSON values; ones that are not, raise KeyError, TypeError, ValueError or AttributeError."""
        content = {key: value for key, value in data.items() if key != "sha256"}
        if _digest(content) != data["sha256"]:
            raise ValueError("its content does not match its digest")
        layout = {name: Column(str(c["dtype"]), tuple(map(int, c["shape"]))) for name, c in data["columns"].items()}
        if odd := next((name for name, column in FIXED.items() if layout.get(name) != column), None):
            raise ValueError(f"its column {odd} is {layout.get(odd, 'missing')}")
        _check_spaces(data["made"], layout)
        shards = tuple(map(Shard.from_json, data["shards"]))
        if min(data["n_steps"], data["shard_rows"]) < 1:
            raise ValueError("it has no rows")
        found = cls(dict(data["made"]), int(data["n_steps"]), int(data["shard_rows"]), layout, shards)
        for index, shard in enumerate(shards):
            if (shard.file, shard.rows) != (file_name(index), found.rows_of(index)):
                raise ValueError(f"shard {index} is {shard.file!r} with {shard.rows} rows")
        return found

    def keeping(self, shards: tuple[Shard, ...]) -> Manifest:
        """The same dataset with `shards` written."""
        return replace(self, shards=shards)


def _check_spaces(made: Mapping[str, Any], layout: Layout) -> None:
    """Raise ValueError unless the columns hold observations and actions of the spaces that are named."""
    try:
        EnvSpec.from_json(made["env"])
        sees, does = space_from_json(made["observation"]), space_from_json(made["action"])
    except RefusedError as error:
        raise ValueError(error.what) from None
    wanted = {name: part.shape for name, part in observations.columns(sees).items()} | {"action": does.shape}
    found = {name: layout[name].shape for name in (*observations.names(layout), "action")}
    if wanted != found:
        raise ValueError(f"its columns are {found}, its spaces {wanted}")


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write(folder: Path, manifest: Manifest) -> None:
    """Replace the manifest in `folder`."""
    artifact.write_json(folder / FILE, manifest.to_json(), force=True)


def read(folder: Path) -> Manifest:
    """The manifest in `folder`.

    Raises:
        UsageError: there is none.
        RefusedError: it is damaged, of another kind, or from a newer kdcli.
    """
    path = folder / FILE
    try:
        data = read_json(path, MAX_RECORDS)
        kind, schema = data["kind"], data["schema"]
        if (kind, schema) == ("dataset", SCHEMA):
            return Manifest.from_json(data)
    except UsageError as error:
        fix = "give the folder that kdcli rollout wrote"
        raise UsageError(f"{folder} is not a dataset: no {FILE}", error.why, fix) from None
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        fix = "make the dataset again, in another folder"
        raise RefusedError(f"{path} is damaged, or no dataset's", repr(error), fix) from None
    raise RefusedError(
        f"{path} is a {kind!r} of schema {schema!r}", f"this kdcli reads dataset {SCHEMA}", "update kdcli"
    )


def difference(one: Any, other: Any, place: str = "") -> str:
    """Where two JSON values differ first, in words; empty when they are equal."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted(one.keys() | other.keys())
        found = (difference(one.get(key), other.get(key), f"{place}.{key}".lstrip(".")) for key in keys)
        return next(filter(None, found), "")
    return "" if one == other else f"{place} was {json.dumps(one)}, now it is {json.dumps(other)}"
