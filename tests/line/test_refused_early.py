"""What can be known to fail is refused before work begins, in three lines."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from toy_teachers import choose_teacher, reach_teacher

from kdcli.agents import store
from kdcli.cli.console import Console
from kdcli.cli.main import main
from kdcli.distillation import learner

TINY = "--labels 200 --rounds 1 --updates 5 --episodes 2"
KEEP = "--student mlp:8 --order in-turn --keep ewc@1"
STEP = '[[step]]\nname = {name}\ndo = "bench"\nagents = ["c.safetensors"]\n'
REFUSED = {
    "a function that is no loss": f"distill c.safetensors --loss os:system {TINY} -o x.safetensors",
    "a value that is no loss": f"distill c.safetensors --loss os:name {TINY} -o x.safetensors",
    "a module's part that is no network": f"distill c.safetensors --student os:getcwd {TINY} -o x.safetensors",
    "a dataset of another env": f"distill r.safetensors --dataset data --data offline {TINY} -o x.safetensors",
    "a dataset of another env to begin with": f"distill r.safetensors --dataset data {TINY} -o x.safetensors",
    "nothing to keep": f"distill-many c.safetensors r.safetensors {KEEP} {TINY} -o x",
    "one task, nothing to keep": f"distill-many c.safetensors {KEEP} {TINY} -o x",
    "other spaces": f"distill-many c.safetensors r.safetensors --order in-turn --share all {TINY} -o x",
    "a step called recipe": "run recipe.toml -o x",
    "a grid without end": "study grid.toml -o x",
    "two steps of one file": "run twice.toml -o x",
    "a name that is a number": "run number.toml -o x",
}


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two teachers and recipes."""
    monkeypatch.chdir(tmp_path)
    store.save(tmp_path / "c.safetensors", choose_teacher(8), {})
    store.save(tmp_path / "r.safetensors", reach_teacher(8), {})
    if "dataset" in request.node.name:
        main(
            ["rollout", "c.safetensors", "--steps", "60", "-o", "data", "--quiet"],
            Console(io.StringIO(), io.StringIO()),
        )
    about = 'about = "x"\n'
    (tmp_path / "recipe.toml").write_text(about + STEP.format(name='"recipe"'))
    twice = '[[step]]\nname = "A.json"\ndo = "rollout"\nagent = "c.safetensors"\n'
    (tmp_path / "twice.toml").write_text(about + STEP.format(name='"a"') + twice)
    axes = "".join(f'[[axis]]\nname = "a{n}"\nvariants = {{ b = {{}}, c = {{}}, d = {{}} }}\n' for n in range(40))
    teacher = 'grid = "full"\n[[teacher]]\nname = "c"\npath = "c.safetensors"\n'
    (tmp_path / "grid.toml").write_text(teacher + axes)
    (tmp_path / "number.toml").write_text(about + STEP.format(name="7"))
    return tmp_path


def test_keys_under_chosen_names_are_listed(place: Path) -> None:
    """Law: an unknown key in a table whose name the user chose is refused with the keys that are known there."""
    (place / "odd.toml").write_text('about = "x"\n[given.x]\nhlep = "y"\n' + STEP.format(name='"a"'))
    err = io.StringIO()
    assert main(["recipes", "check", "odd.toml"], Console(io.StringIO(), err)) == 2
    assert err.getvalue().splitlines()[1:] == ["known: default, help", "did you mean 'help'?"]


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_before_work(name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: exit code 2 and three lines, before anything is trained or written."""

    def train(*_: object) -> None:
        raise AssertionError("training began")

    monkeypatch.setattr(learner.Learner, "train", train)
    err = io.StringIO()
    code = main([*REFUSED[name].split(), "--quiet"], Console(io.StringIO(), err))
    told = err.getvalue().splitlines()
    assert (code, len(told)) == (2, 3), told
    assert not list(place.glob("x*"))


def test_a_part_of_the_user_s_own_that_fails_is_the_user_s(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: an error with a foreign part at work names that part, exit code 2, and is not called a bug of kdcli."""
    (place / "mine_own.py").write_text("def loss(student, teacher, tau):\n    raise KeyError('no')\n")
    monkeypatch.syspath_prepend(place)
    err = io.StringIO()
    words = f"distill c.safetensors --loss mine_own:loss {TINY} -o x.safetensors --quiet"
    code = main(words.split(), Console(io.StringIO(), err))
    assert code == 2
    assert "mine_own:loss" in err.getvalue()
    assert "a bug in kdcli" not in err.getvalue()
