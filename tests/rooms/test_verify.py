"""Whatever kdcli writes is verified: what is whole passes, and whatever byte of it changes is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from toy_teachers import reach_teacher

import kdcli
from kdcli.agents import store
from kdcli.cli.main import main
from kdcli.errors import RefusedError

QUICK = {"labels": 200, "rounds": 1, "updates": 5, "episodes": 2, "student": "linear"}
RECIPE = """
about = "x"
[[step]]
do = "load"
name = "agent"
path = "{agent}"
[[step]]
do = "rollout"
name = "data"
agent = "@agent"
steps = 64
envs = 1
"""
STUDY = """
seeds = 1
episodes = 2
states = 4
base = {student = "linear", labels = 100, rounds = 1, updates = 2, episodes = 2}
[[teacher]]
name = "t"
path = "AGENT"
max_steps = 30
[[axis]]
name = "a"
[axis.variants]
v = {tau = 2.0, loss = ["kl"]}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of everything."""
    home = tmp_path_factory.mktemp("verified")
    agent = store.save(home / "agent.safetensors", reach_teacher(), {})
    kdcli.rollout(agent, output=home / "data", steps=64, envs=1, shard_rows=32)
    kdcli.export(agent, home / "agent.onnx")
    kdcli.distill_many([agent, agent], output=home / "many", **{**QUICK, "student": "mlp:4x4"})
    (home / "recipe.toml").write_text(RECIPE.format(agent=agent))
    kdcli.run(home / "recipe.toml", home / "run")
    return home


THINGS = ["agent.safetensors", "data", "agent.onnx", "many", "run"]


@pytest.mark.parametrize("name", THINGS)
def test_what_is_whole_passes(home: Path, name: str) -> None:
    """Law: nothing is found where nothing was changed."""
    assert kdcli.verify(home / name).passed


def harmed(path: Path, at: float) -> None:
    """Change one bit."""
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 0x10
    path.write_bytes(data)


def cut(path: Path, at: float) -> None:
    """Lose the end."""
    path.write_bytes(path.read_bytes()[: int(at * (path.stat().st_size - 1))])


# The folders, and the files that they have digests of.
TOLD = {"data": "*", "many": "*.safetensors", "run": "**/*.safetensors"}


@pytest.mark.parametrize("harm", [harmed, cut])
@pytest.mark.parametrize("name", TOLD)
def test_every_file_that_is_harmed_is_found(
    home: Path, name: str, harm: Callable[[Path, float], None], tmp_path: Path
) -> None:
    """Law: in a folder, each file that is changed or cut is reported."""
    rng, files = np.random.default_rng(0), sorted((home / name).glob(TOLD[name]))
    assert files
    for file in files:
        copy = tmp_path / file.name
        shutil.copytree(home / name, copy)
        harm(copy / file.relative_to(home / name), float(rng.random()))
        assert kdcli.verify(copy).damaged, file


@pytest.mark.parametrize("name", ["data", "run"])
def test_what_is_missing_is_found(home: Path, name: str, tmp_path: Path) -> None:
    """Law: a file that the record names and that is gone is reported."""
    shutil.copytree(home / name, tmp_path / name)
    next((tmp_path / name).glob("*.safetensors")).unlink()
    assert kdcli.verify(tmp_path / name).damaged


def test_the_command_tells(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Law: exit code 0 for what is whole, 4 and the file's name for what is not, 2 for what nothing is known of."""
    assert main(["verify", str(home / "agent.safetensors"), str(home / "data")]) == 0
    capsys.readouterr()
    shutil.copytree(home / "data", tmp_path / "data")
    harmed(tmp_path / "data" / "shard-00001.safetensors", 0.5)
    assert main(["verify", str(home / "agent.safetensors"), str(tmp_path / "data"), "--json"]) == 4
    answer = json.loads(capsys.readouterr().out)
    assert [one["damage"] is None for one in answer["checked"]] == [True, False]
    assert "shard-00001" in answer["checked"][1]["damage"]
    (tmp_path / "x.txt").write_text("x")
    for path in ("x.txt", "nothing"):
        assert main(["verify", str(tmp_path / path)]) == 2


def test_damaged_data_teaches_nothing(home: Path, tmp_path: Path) -> None:
    """Law: a student learns from no shard that is not as it was written."""
    shutil.copytree(home / "data", tmp_path / "data")
    harmed(tmp_path / "data" / "shard-00000.safetensors", 0.9)
    with pytest.raises(RefusedError, match="shard-00000"):
        kdcli.distill(
            home / "agent.safetensors", dataset=tmp_path / "data", data="offline", student="linear", updates=5
        )


def test_what_a_run_made_is_made_again_where_it_is_damaged(home: Path, tmp_path: Path) -> None:
    """Law: a run keeps no dataset whose shards were changed."""
    shutil.copytree(home / "run", tmp_path / "run")
    harmed(tmp_path / "run" / "data" / "shard-00000.safetensors", 0.9)
    kdcli.run(home / "recipe.toml", tmp_path / "run")
    assert kdcli.verify(tmp_path / "run").passed


def test_a_student_of_a_study_is_made_again_where_it_is_damaged(home: Path, tmp_path: Path) -> None:
    """Law: a study keeps no student that was changed."""
    text = STUDY.replace("AGENT", str(home / "agent.safetensors"))
    (tmp_path / "study.toml").write_text(text)
    kdcli.study(tmp_path / "study.toml", tmp_path / "study")
    assert kdcli.verify(tmp_path / "study").passed
    student = next((tmp_path / "study" / "students").glob("*.safetensors"))
    before = student.read_bytes()
    harmed(student, 0.9)
    assert [one.path for one in kdcli.verify(tmp_path / "study").damaged] == [student]
    kdcli.study(tmp_path / "study.toml", tmp_path / "study")
    assert student.read_bytes() == before
