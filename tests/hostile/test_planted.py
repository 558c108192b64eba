"""A name in a file is data: no command imports, starts or writes what a file names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from planted import in_toml, texts_of
from worker import run

from kdcli.checkpoints.blackbox import torch_program
from kdcli.envs.make import make
from kdcli.errors import UsageError
from kdcli.recipes import STEPS
from kdcli.said import hearing, is_said
from kdcli.spec import EnvSpec

SCRIPT = Path(__file__).with_name("planted.py")
SHARES = 6


def tried(seeds: Path, home: Path, *options: str) -> dict[str, int]:
    """How many files were tried of each kind, none of which did any harm."""
    words = [sys.executable, str(SCRIPT), str(seeds), str(home), *options]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout)
    assert answer["caught"] == []
    return answer["tried"]


def test_names_in_files_are_data(seed_folder: Path, tmp_path: Path) -> None:
    """Law: a module named in any string of any file that kdcli reads is neither looked for, nor written to, nor run."""
    found = tried(seed_folder, tmp_path)
    read = {"card", "card with spaces", "agent", "zoo", "sb3", "d3rlpy", "onnx", "dataset", "recipe", "study loss"}
    assert {*found} >= read
    named = [do for do in STEPS.names() if texts_of(STEPS.load(do).config)]
    assert all(any(name.startswith(f"recipe {do} ") for name in found) for do in named)


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
def test_names_in_files_are_data_in_every_form(share: int, seed_folder: Path, tmp_path: Path) -> None:
    """Law: the same of every form of name, for every command, in programs and the records of runs and studies, too."""
    assert {*tried(seed_folder, tmp_path, f"{share}/{SHARES}")} >= {"program", "run recipe.json", "study study.json"}


CODE = "gymnasium.wrappers:TimeLimit:max_episode_steps=3"


def test_what_the_user_repeats_is_done() -> None:
    """Law: in a command, code that a file names is used where an option says the same, and only then."""
    spec = EnvSpec.from_json(EnvSpec("CartPole-v1", wrappers=(CODE,)).to_json())
    for allowed, fix in ((None, f"--env CartPole-v1 --wrapper {CODE}"), ([], f"--allow {CODE}")):
        with hearing([], allowed), pytest.raises(UsageError, match="a file names code") as raised:
            make(spec)
        assert raised.value.fix.endswith(fix)
    with hearing([CODE]):
        make(spec).close()
        assert is_said("gymnasium.wrappers:TimeLimit")


def test_a_path_in_a_file_is_not_opened(tmp_path: Path) -> None:
    """Law: a path among the arguments of a file's env is refused, of the user's own is used; repeating it helps."""
    spec = EnvSpec("Hopper-v5", {"xml_file": str(tmp_path / "x.xml")})
    quoted = EnvSpec.from_json(spec.to_json())
    with pytest.raises(UsageError, match="a path") as raised:
        make(quoted)
    assert f"--env-kwargs xml_file={tmp_path / 'x.xml'}" in raised.value.fix
    with pytest.raises(UsageError, match=r"x\.xml"):
        make(spec)
    with hearing([f"xml_file={tmp_path / 'x.xml'}"]), pytest.raises(UsageError, match=r"x\.xml"):
        make(quoted)


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ("student.loss=pkg.mod:term@0.5", ["pkg.mod:term"]),
        ('step.wrapper=["a.b:C:k=v", "flatten"]', ["a.b:C"]),
        ("ppo@linear:0->1", []),
        ("pkg.mod:W/policy.onnx", []),
        ("runs/pkg.mod:W", []),
    ],
)
def test_what_an_option_says(said: str, names: list[str]) -> None:
    """Law: names inside an option's value are said, parts of a path are not."""
    with hearing([said]):
        assert is_said(said)
        assert [name for name in ("pkg.mod:term", "pkg.mod:W", "a.b:C") if is_said(name)] == names
    assert not is_said(said)


def test_a_recipe_does_not_trust_a_program(seed_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: a recipe that says a program may be run is not enough: the command line allows that file, by its name."""
    loaded: list[str] = []
    monkeypatch.setattr(torch_program, "_loaded", lambda path, kind: loaded.append(path.name) or 1 / 0)
    recipe, program = tmp_path / "recipe.toml", seed_folder / "torchscript" / "policy.pt"
    step = {"do": "load", "path": str(program), "trust": True, "env": "Pendulum-v1", "signal": "mean"}
    recipe.write_text(in_toml({"about": "x", "step": [step]}))
    for said in ([], ["--set", f"load.path={program}"], ["--allow", "policy.pt"]):
        code, told = run(["run", str(recipe), "-o", str(tmp_path / "-".join(["run", *said[:1]])), "-q", *said])
        allowed = "--allow" in said
        assert (code != 0, loaded) == (True, ["policy.pt"] if allowed else []), told
        assert ("--allow policy.pt" in told[-1]) == (not allowed)
