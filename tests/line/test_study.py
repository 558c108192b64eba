"""Studies: a grid of variants on toy teachers, stopped, continued, and run by several processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from toy_teachers import choose_teacher, reach_teacher

from kdcli.agents import store
from kdcli.cli.main import main
from kdcli.studies.config import Study
from kdcli.studies.folder import Folder
from kdcli.studies.plan import cells
from kdcli.toml_config import built

REPO = Path(__file__).parents[2]
QUICK = """
seeds = 2
episodes = 20
states = 200

[base]
student = "mlp:6"
labels = 400
rounds = 2
updates = 200
episodes = 2

[[teacher]]
name = "choose"
path = "choose.safetensors"

[[axis]]
name = "loss"
variants = { nll = { loss = "nll" }, mean = { loss = ["mean"] } }

[[variant]]
name = "barely"
options = { updates = 2 }
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two teachers and a study of one of them, where kdcli is run."""
    monkeypatch.chdir(tmp_path)
    store.save(tmp_path / "choose.safetensors", choose_teacher(), {})
    store.save(tmp_path / "reach.safetensors", reach_teacher(), {})
    (tmp_path / "study.toml").write_text(QUICK)
    return tmp_path


def study(place: Path, *words: str) -> int:
    return main(["study", str(place / "study.toml"), "-o", str(place / "run"), "-q", *words])


def rows(place: Path, teacher: int = 0) -> dict[str, Any]:
    table = json.loads((place / "run" / "table.json").read_text())
    return {row["variant"]: row for row in table["teachers"][teacher]["rows"]}


def test_a_study_is_a_table(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Law: every variant has a mean over seeds and a paired difference with intervals; what cannot be is named."""
    assert study(place, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    found = {row["variant"]: row for row in answer["teachers"][0]["rows"]}
    assert list(found) == ["base", "loss=nll", "loss=mean", "barely"]
    assert answer["cells"] == {"there": 8, "total": 8}
    assert found["base"]["difference"] is None
    assert found["base"]["score"]["low"] <= found["base"]["score"]["mean"] <= found["base"]["score"]["high"]
    assert found["barely"]["score"]["mean"] < found["base"]["score"]["mean"]
    assert found["loss=mean"]["score"] is None
    assert "mean" in found["loss=mean"]["reason"]
    page = (place / "run" / "table.md").read_text()
    assert "loss=mean: not applicable" in page
    assert str(place) not in page


def test_what_is_there_is_kept(place: Path) -> None:
    """Law: the same command makes only what is missing, and the same bytes of it but for the seconds."""
    assert study(place) == 0
    cells = sorted((place / "run" / "cells").iterdir())
    before = {cell.name: (cell.stat().st_mtime_ns, json.loads(cell.read_text())) for cell in cells}
    lost = place / "run" / "cells" / "choose.base.1.json"
    lost.unlink()
    assert study(place) == 0
    for cell in cells:
        if cell != lost:
            assert cell.stat().st_mtime_ns == before[cell.name][0]
    again, timed = json.loads(lost.read_text()), ("seconds", "cpu_seconds", "measured_in")
    assert {k: v for k, v in again.items() if k not in timed} == {
        k: v for k, v in before[lost.name][1].items() if k not in timed
    }


def test_other_options_are_not_mixed_in(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Law: cells made with other options are neither kept nor lost silently."""
    assert study(place) == 0
    (place / "study.toml").write_text(QUICK.replace("updates = 200", "updates = 300"))
    capsys.readouterr()
    assert study(place) == 2
    said = capsys.readouterr().err.splitlines()
    assert "updates 200 -> 300" in said[1]
    assert "--force" in said[2]
    assert rows(place)["base"]["updates"] == 200
    assert study(place, "--force") == 0
    assert rows(place)["base"]["updates"] == 300
    assert rows(place)["barely"]["updates"] == 2


def test_several_teachers_and_a_full_grid(place: Path) -> None:
    """Law: a full grid crosses its axes, a teacher may have options of its own, and one table is over all teachers."""
    text = QUICK.replace("seeds = 2", 'seeds = 1\ngrid = "full"').replace("[[variant]]", AXIS + "\n[[variant]]", 1)
    (place / "study.toml").write_text(text + REACH)
    assert study(place) == 0
    names = ["base", "width=wide", "loss=nll", "loss=nll,width=wide", "loss=mean", "loss=mean,width=wide", "barely"]
    assert list(rows(place)) == names
    assert rows(place)["loss=nll,width=wide"]["params"] > rows(place)["loss=nll"]["params"]
    assert rows(place, 1)["base"]["updates"] == 220
    assert rows(place, 1)["loss=mean"]["score"] is not None
    table = json.loads((place / "run" / "table.json").read_text())
    assert {row["variant"]: row["teachers"] for row in table["overall"]}["loss=mean"] == 1


AXIS = """
[[axis]]
name = "width"
variants = { wide = { student = "mlp:12" } }
"""
REACH = """
[[teacher]]
name = "reach"
path = "reach.safetensors"
options = { updates = 220 }
"""

WRONG = [
    ("updates = 200", "update = 200", "unknown key in choose, base: 'update'", "did you mean 'updates'?"),
    ('loss = "nll"', 'loss = "nl"', "choose, loss=nll: unknown loss 'nl'", "did you mean 'nll'?"),
    ("[[axis]]", "[[axes]]", "unknown key in study.toml: 'axes'", "did you mean 'axis'?"),
    ('name = "barely"', 'names = "barely"', "unknown key in study.toml, variant 1: 'names'", "did you mean 'name'?"),
    ("updates = 2 }", "seed = 2 }", "choose, barely sets a seed", "set seeds = 5 instead"),
    ("seeds = 2", "seeds = 0", "study.toml: seeds cannot be 0", "correct it"),
    ("seeds = 2", "seeds 2", "study.toml is not TOML", "see https://toml.io"),
    ("choose.safetensors", "$NO_SUCH_PLACE/x", "cannot find $NO_SUCH_PLACE/x", "export NO_SUCH_PLACE=..."),
    ('name = "barely"', 'name = "base"', "two variants are called 'base'", "rename one"),
]


@pytest.mark.parametrize(("old", "new", "what", "fix"), WRONG)
def test_mistakes_are_found_before_anything_runs(
    old: str, new: str, what: str, fix: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Law: whatever is misspelt in the file is exit 2 in three lines that name the key, and no cell is made."""
    (place / "study.toml").write_text(QUICK.replace(old, new, 1))
    assert study(place) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    assert what in said[0]
    assert said[2].startswith(fix)
    assert not (place / "run" / "cells").exists()


def test_a_foreign_folder_is_left_alone(place: Path) -> None:
    """Law: a folder that is no study's is not written into."""
    (place / "run").mkdir()
    (place / "run" / "thesis.tex").write_text("")
    assert study(place) == 2
    assert [file.name for file in (place / "run").iterdir()] == ["thesis.tex"]


def test_a_claim_is_exclusive(tmp_path: Path) -> None:
    """Law: of those that want to make a cell, one may, and the next when it is done, whether it went well or not."""
    folder = Folder(tmp_path)
    with suppress(KeyError), folder.claim("cell") as mine, folder.claim("cell") as other, folder.claim("x") as x:
        assert (mine, other, x) == (True, False, True)
        raise KeyError
    with folder.claim("cell") as mine:
        assert mine


def test_a_killed_process_leaves_nothing_to_clean_up(place: Path) -> None:
    """Law: after kill -9 in the middle of a cell, another process goes on at once, and ends with the whole table."""
    (place / "study.toml").write_text(QUICK.replace("updates = 200", "updates = 800"))
    words = [sys.executable, "-m", "kdcli", "study", str(place / "study.toml"), "-o", str(place / "run"), "-q"]
    doomed = subprocess.Popen(words, cwd=place, env={**os.environ, "PYTHONPATH": str(REPO)})
    deadline = time.monotonic() + 100
    while not (place / "run" / "cells" / "choose.base.0.json").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    doomed.kill()
    doomed.wait()
    assert (place / "run" / "cells" / "choose.base.0.json").exists()
    assert not (place / "run" / "cells" / "choose.barely.1.json").exists()
    assert study(place) == 0
    assert json.loads((place / "run" / "table.json").read_text())["cells"] == {"there": 8, "total": 8}


def test_the_readme_tells_a_study() -> None:
    """Law: the study in README is one: its keys, names and options are read without complaint."""
    told = (REPO / "README.md").read_text().partition("### What is better here?")[2]
    text = told.partition("```toml\n")[2].partition("```")[0]
    found = cells(built(Study, tomllib.loads(text), "README"))
    assert [cell.name for cell in found[:2]] == ["LunarLander.base.0", "LunarLander.loss=nll.0"]
