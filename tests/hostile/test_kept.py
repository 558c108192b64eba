"""Records that kdcli keeps, harmed at every place: each command that reads one refuses it or reads it right."""

from __future__ import annotations

import random
from pathlib import Path

import kept
import pytest


@pytest.fixture(scope="session")
def kept_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of everything that is kept."""
    folder = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        kept.make_all(folder)
    return folder


def faults(harms: list[kept.Harm], folder: Path, place: Path) -> list[str]:
    """A line for each harm that ended in no error of three lines with a code of the contract."""
    found = []
    for harm in harms:
        code, told = kept.outcome(harm, folder, place)
        if code not in range(5) or (code > 1 and not 1 <= len(told) <= 3):
            found.append(f"{harm.kind}, {harm.title}: {code} {told[:2]}")
    return found


def test_a_sample_of_harmed_records(kept_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: a value of another kind, a missing key, or nesting without end in any record is refused, never a bug."""
    monkeypatch.chdir(tmp_path)
    harms = list(kept.harms(kept_folder))
    each = [harm for kind in kept.KINDS for harm in random.Random(kind).sample([h for h in harms if h.kind == kind], 2)]
    assert faults(each, kept_folder, tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", kept.KINDS)
def test_all_harmed_records(kind: str, kept_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: as the sample, at every place of every record."""
    monkeypatch.chdir(tmp_path)
    harms = [harm for harm in kept.harms(kept_folder) if harm.kind == kind]
    assert faults(harms, kept_folder, tmp_path) == []
