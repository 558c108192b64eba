"""The Python API as docs/python.md and the examples show it."""

from __future__ import annotations

import re
import runpy
import shutil
from pathlib import Path

import pytest

import kdcli

REPO = Path(__file__).parents[2]
DOC = REPO / "docs" / "python.md"


def test_every_verb_is_in_the_docs() -> None:
    """Law: the page names every public function, and no other."""
    told = set(re.findall(r"^\| `kdcli\.(\w+)` \| `kdcli", DOC.read_text(), re.MULTILINE))
    assert told == {name for name in dir(kdcli) if name.islower() and not name.startswith("_")}


@pytest.mark.slow
def test_the_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: every snippet of the page runs, one after the other, in one process."""
    shutil.copytree(
        REPO / "sample_checkpoints" / "ppo" / "CartPole-v1_1", tmp_path / "sample_checkpoints/ppo/CartPole-v1_1"
    )
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for snippet in re.findall(r"```python\n(.*?)```", DOC.read_text(), re.DOTALL):
        exec(compile(snippet, str(DOC), "exec"), names)
    assert (tmp_path / "student.onnx").exists()


@pytest.mark.slow
@pytest.mark.parametrize("example", sorted((REPO / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_an_example_runs(example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: every example runs as it is."""
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(example))
