"""What may be given for recorded states: a folder that a rollout wrote, or an open dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdcli import artifact
from kdcli.datasets import Dataset
from kdcli.errors import UsageError


def find_dataset(dataset: Any) -> tuple[Dataset, dict[str, str]]:
    """The dataset behind `dataset`, every byte of it checked, and how what is made of it names it.

    Raises:
        UsageError: it is neither a path nor a dataset, or cannot be opened.
        RefusedError: it is damaged.
    """
    if not isinstance(dataset, str | Path | Dataset):
        what = f"{type(dataset).__name__} is not a dataset"
        raise UsageError(what, "known: the folder of a rollout, a kdcli.datasets.Dataset", "record one with rollout")
    found = dataset if isinstance(dataset, Dataset) else Dataset.open(dataset)
    found.verify()
    return found, artifact.parent(found.folder / "manifest.json")
