"""A dataset being written: a shard at a time, the manifest after each, so that any interruption loses one shard."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdcli import artifact
from kdcli.datasets import manifest as manifests
from kdcli.datasets import shards
from kdcli.datasets.manifest import Manifest
from kdcli.datasets.shards import Columns
from kdcli.errors import UsageError
from kdcli.locks import claim_folder

_DEBRIS = re.compile(r"\.(shard-\d{5,}\.safetensors|manifest\.json)\.[\da-f-]+\.tmp")
_SHARD = re.compile(r"shard-\d{5,}\.safetensors")


class Writer:
    """Adds shards in order; `manifest` says which are there."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest

    def missing(self) -> range:
        """Indices of the shards that are not written yet."""
        return range(len(self.manifest.shards), self.manifest.n_shards)

    def add(self, columns: Columns) -> None:
        """Write the first missing shard; columns are as the manifest plans, in order of episodes.

        Raises:
            UsageError: a column holds NaN, or the disk is full; what was written before stays.
        """
        index = self.missing()[0]
        rows = {len(column) for column in columns.values()}
        if shards.layout_of(columns) != self.manifest.layout or rows != {self.manifest.rows_of(index)}:
            raise ValueError(f"shard {index} is not as planned: {rows} rows, {shards.layout_of(columns)}")
        shard = shards.write(self.folder, index, columns)
        self.manifest = self.manifest.keeping((*self.manifest.shards, shard))
        manifests.write(self.folder, self.manifest)


@contextmanager
def writing(folder: Path, plan: Manifest, force: bool = False) -> Iterator[Writer]:
    """Begin the dataset `plan` in `folder`, or go on with it when it was begun in the same way and not finished.

    Raises:
        UsageError: the folder holds something else, or is being written by another process; a dataset that is
            finished or made otherwise is replaced with `force`.
        RefusedError: its manifest is damaged.
    """
    _refuse_foreign(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        yield Writer(folder, _begin(folder, plan, force))


def _refuse_foreign(folder: Path) -> None:
    """Raise UsageError for a file, and for a folder with other things in it; --force is no leave to delete those."""
    if not folder.exists() or (folder / manifests.FILE).exists():
        return
    if not folder.is_dir() or any(not _DEBRIS.fullmatch(path.name) for path in folder.iterdir()):
        raise UsageError(f"{folder} exists and is not a dataset", "it would be mixed with one", "name another output")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Lock the folder while writing."""
    with claim_folder(folder) as mine:
        if not mine:
            why = "another kdcli is writing there"
            raise UsageError(f"{folder} is in use", why, "wait for it, or name another output")
        yield


def _begin(folder: Path, plan: Manifest, force: bool) -> Manifest:
    begun = manifests.read(folder) if (folder / manifests.FILE).exists() else None
    other = begun is not None and manifests.difference(begun.plan(), plan.plan())
    if begun is not None and not begun.complete and not other:
        plan = plan.keeping(_intact(folder, begun))
    elif begun is not None and begun.complete:
        artifact.refuse_existing(folder, force)
    elif begun is not None and not force:
        what = f"{folder} holds an unfinished dataset that was begun otherwise"
        raise UsageError(what, str(other), "repeat its command, add --force, or name another output")
    manifests.write(folder, plan)
    _sweep(folder, plan)
    return plan


def _intact(folder: Path, begun: Manifest) -> tuple[shards.Shard, ...]:
    """The shards up to the first that is missing or damaged."""
    first = next((i for i, shard in enumerate(begun.shards) if not shards.intact(folder, shard)), len(begun.shards))
    return begun.shards[:first]


def _sweep(folder: Path, manifest: Manifest) -> None:
    """Remove what the manifest does not name: half-written files of a killed process, shards of a former dataset."""
    named = {shard.file for shard in manifest.shards}
    for path in folder.iterdir():
        if path.name not in named and (_DEBRIS.fullmatch(path.name) or _SHARD.fullmatch(path.name)):
            path.unlink()
