"""Recipes: chains of steps in a file, on toy teachers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_teachers import choose_teacher, reach_teacher

from kdcli.agents import store
from kdcli.agents.agent import Agent
from kdcli.agents.policy import Policy, Signal
from kdcli.cli.main import main
from kdcli.locks import claim
from kdcli.recipes.recipe import builtins, read_recipe

REPO = Path(__file__).parents[2]
TINY = {"labels": 400, "rounds": 2, "updates": 200, "episodes": 2}
RECIPE = """
about = "a chain of all kinds"

[given]
teacher = { help = "who teaches" }
updates = { help = "how many", default = 800 }

[[step]]
name = "data"
do = "rollout"
agent = "{teacher}"
steps = 500

[[step]]
name = "student"
do = "distill"
teacher = "{teacher}"
dataset = "@data"
data = "offline"
student = "mlp:6"
rounds = 2
updates = "{updates}"
episodes = 2

[[step]]
name = "policy"
do = "export"
agent = "@student"

[[step]]
do = "bench"
agents = ["{teacher}", "@policy"]
episodes = 40
latency_budget = "0s"
linear_budget = "0s"
gate = ["score>=0.5"]
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with toy teachers and a recipe, where kdcli is run."""
    monkeypatch.chdir(tmp_path)
    teachers = {
        "choose": choose_teacher(),
        "reach": reach_teacher(),
        "q": _saying("q"),
        "critic": _saying("logits"),
        "again": choose_teacher(32),
    }
    for name, agent in teachers.items():
        store.save(tmp_path / f"{name}.safetensors", agent, {})
    (tmp_path / "my.toml").write_text(RECIPE)
    return tmp_path


def _saying(signal: Signal) -> Agent:
    """A teacher whose outputs are Q-values, or logits, with a state value beside them."""
    agent = choose_teacher()
    network, value = agent.policy.network, torch.nn.Linear(agent.policy.network.head.in_features, 1)
    policy = Policy(network, agent.policy.rule, signal, value=value)
    return replace(agent, policy=policy.eval().requires_grad_(False))


def run(*words: str) -> int:
    return main(["run", "my.toml", "-o", "out", "-q", "--set", "teacher=choose.safetensors", *words])


def record() -> dict[str, Any]:
    return {step["name"]: step for step in json.loads(Path("out/recipe.json").read_text())["steps"]}


def test_a_recipe_is_a_chain(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Law: every step's output is in the run folder, with its options, the digests of what it was made from."""
    assert run("--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert [step["output"] for step in answer["steps"]] == ["data", "student.safetensors", "policy.onnx", "bench.json"]
    found = record()
    assert found["policy"]["parents"] == {"agent": [found["student"]["sha256"]]}
    assert found["student"]["parents"]["dataset"] == [found["data"]["sha256"]]
    assert found["student"]["options"]["updates"] == 800
    assert answer["steps"][3]["facts"]["verdicts"] == ["passed"]
    assert Path("out/recipe.toml").read_text() == RECIPE
    assert str(place) not in Path("out/recipe.json").read_text()


def test_what_is_done_is_kept(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Law: the same command makes what is missing, to the same bytes, and leaves the rest alone."""
    assert run() == 0
    before = {name: step["sha256"] for name, step in record().items()}
    Path("out/student.safetensors").unlink()
    capsys.readouterr()
    assert run("--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert [step["kept"] for step in answer["steps"]] == [True, False, True, True]
    assert {name: step["sha256"] for name, step in record().items()} == before


def test_a_damaged_output_is_made_again(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Law: a file that is not as it was made is not built upon."""
    assert run() == 0
    with open("out/policy.onnx", "ab") as file:
        file.write(b"x")
    capsys.readouterr()
    assert run("--json") == 0
    kept = {step["name"]: step["kept"] for step in json.loads(capsys.readouterr().out)["steps"]}
    assert kept == {"data": True, "student": True, "policy": False, "bench": True}


def test_other_options_are_not_mixed_in(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Law: a folder made with other options or from other files is refused before anything runs; --force remakes."""
    assert run() == 0
    assert run("--set", "updates=900") == 2
    assert "updates 800 -> 900" in capsys.readouterr().err
    assert run("--set", "teacher=again.safetensors") == 2
    assert "another" in capsys.readouterr().err
    before = record()
    assert run("--set", "student.updates=300", "--force", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert [step["kept"] for step in answer["steps"]] == [True, False, False, False]
    assert record()["student"]["options"]["updates"] == 300
    assert record()["data"] == before["data"]


def test_a_gate_is_an_exit_code(place: Path) -> None:
    """Law: a gate that fails is exit code 1, also when the bench was kept."""
    assert run("--set", 'bench.gate=["params<=3"]') == 1
    assert run("--set", 'bench.gate=["params<=3"]') == 1


def test_one_process_a_folder(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Law: two processes do not write into one run folder."""
    with claim(Path("out/.lock")):
        assert run() == 2
    assert "in use" in capsys.readouterr().err


def test_a_killed_run_goes_on(place: Path) -> None:
    """Law: after kill -9 the same command ends with the bytes of a run that nobody stopped."""
    assert run("--set", "student.updates=3000") == 0
    whole = {name: step["sha256"] for name, step in record().items() if name != "bench"}
    words = [sys.executable, "-m", "kdcli", "run", "my.toml", "-o", "cut", "-q", "--set", "student.updates=3000"]
    words += ["--set", "teacher=choose.safetensors"]
    doomed = subprocess.Popen(words, cwd=place, env={**os.environ, "PYTHONPATH": str(REPO)})
    deadline = time.monotonic() + 100
    while not Path("cut/recipe.json").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    doomed.kill()
    doomed.wait()
    assert not Path("cut/policy.onnx").exists()
    assert main(words[3:]) == 0
    found = {s["name"]: s["sha256"] for s in json.loads(Path("cut/recipe.json").read_text())["steps"]}
    assert {name: found[name] for name in whole} == whole


WRONG = [
    ('about = "a chain', 'abut = "a chain', "unknown key in my.toml: 'abut'", "did you mean 'about'?"),
    ('do = "rollout"', 'do = "rolout"', "unknown kind of step 'rolout'", "did you mean 'rollout'?"),
    ("episodes = 2\n", "episode = 2\n", "unknown key in step student: 'episode'", "did you mean 'episodes'?"),
    ("rounds = 2", "rounds = 0", "step student: rounds cannot be 0", "correct it"),
    ("episodes = 2\n", 'loss = "kll"\n', "step student: unknown loss 'kll'", "did you mean"),
    ('agent = "@student"', 'agent = "@studen"', "step policy: unknown step before it for agent: 'studen'", "did you"),
    ('agent = "@student"', 'agent = "@bench"', "step policy: unknown step before it for agent: 'bench'", "choose one"),
    ('agent = "@student"', 'agent = "@student/1"', "step policy: agent cannot be @student/1", "write @student"),
    ('agent = "@student"', 'agent = "@data"', "step policy: agent cannot be @data", ""),
    ('agent = "@student"', "", "step policy: agent is missing", "add agent"),
    ('dataset = "@data"', 'dataset = "there"', "step student: there is no dataset", "make it with kdcli rollout"),
    ('name = "policy"', 'name = "student"', "two steps have the same name", "add name"),
    ('name = "policy"', 'name = "../up"', "step ../up has a name that cannot be a file's", ""),
    ('"{updates}"', '"{udpates}"', "unknown value to give: 'udpates'", "did you mean 'updates'?"),
    ("score>=0.5", "scor>=0.5", "step bench: unknown metric 'scor'", "did you mean 'score'?"),
]


@pytest.mark.parametrize(("old", "new", "what", "fix"), WRONG)
def test_mistakes_are_found_before_anything_runs(
    old: str, new: str, what: str, fix: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Law: whatever is wrong in the file is exit 2 with the key's name, in `check` as in `run`; nothing is made."""
    Path("my.toml").write_text(RECIPE.replace(old, new, 1))
    assert run() == 2
    said = capsys.readouterr().err.splitlines()
    assert what in said[0]
    assert not fix or said[-1].startswith(fix)
    assert not Path("out").exists()
    assert main(["recipes", "check", "my.toml"]) == 2
    assert capsys.readouterr().err.splitlines() == said


TASKS_RECIPE = """
about = "two tasks"

[[step]]
name = "both"
do = "distill-many"
teachers = ["choose.safetensors", "reach.safetensors"]
order = "in-turn"
keep = ["ewc@1"]

[[step]]
name = "lean"
do = "prune"
agent = "@both/2"
lossless = true
"""
WRONG_TASKS = [
    ("@both/2", "@both", "step lean: agent cannot be @both", "write @both/1 for that of the first"),
    ("@both/2", "@both/3", "step lean: agent cannot be @both/3", "write @both/1 for that of the first"),
    ("lossless = true", "", "step lean: nothing is asked for", "give to='params<=2000', or lossless"),
    (
        "lossless = true",
        'to = "params<=9"\npace = "fast"',
        "step lean: unknown pace 'fast'",
        "choose one of these names",
    ),
    ("lossless = true", 'to = "parms<=9"', "step lean: unknown pruning budget 'parms'", "did you mean 'params'?"),
    (
        'do = "prune"\nagent = "@both/2"\nlossless = true',
        'do = "quantize"\nagent = "@both/1"\nscheme = "int7"',
        "step lean: unknown scheme 'int7'",
        "did you mean 'int8'?",
    ),
    ("ewc@1", "ewk@1", "step both: unknown penalty 'ewk'", "did you mean 'ewc'?"),
]


@pytest.mark.parametrize(("old", "new", "what", "fix"), WRONG_TASKS)
def test_students_of_tasks_are_numbered(
    old: str, new: str, what: str, fix: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Law: what several tasks make is taken by number, and only by one that is there."""
    Path("tasks.toml").write_text(TASKS_RECIPE)
    assert main(["recipes", "check", "tasks.toml"]) == 0
    Path("tasks.toml").write_text(TASKS_RECIPE.replace(old, new))
    assert main(["recipes", "check", "tasks.toml"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert what in said[0]
    assert said[-1] == fix


def test_what_is_not_given_is_asked_for(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Law: a recipe says what it needs, and what it cannot be told."""
    assert main(["recipes", "check", "my.toml"]) == 0
    assert "--set teacher=...  who teaches" in capsys.readouterr().out
    assert main(["run", "my.toml"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "give --set teacher=..."
    assert run("--set", "techer=x") == 2
    assert "did you mean 'teacher'?" in capsys.readouterr().err
    assert run("--set", "studen.labels=4") == 2
    assert "did you mean 'student'?" in capsys.readouterr().err
    assert run("--set", "teacher") == 2
    assert run("--set", 'teacher=["choose.safetensors", "again.safetensors"]') == 2
    assert "agent are 2" in capsys.readouterr().err


def test_a_recipe_is_copied_and_changed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Law: what `show` shows is what `copy` writes and `check` reads; an existing file is not overwritten."""
    assert main(["recipes", "show", "dagger"]) == 0
    shown = capsys.readouterr().out
    assert main(["recipes", "copy", "dagger", "-o", "mine.toml"]) == 0
    assert Path("mine.toml").read_text() == shown
    assert main(["recipes", "copy", "dagger", "-o", "mine.toml"]) == 2
    assert main(["recipes", "check", "mine.toml"]) == 0
    assert main(["recipes", "show", "daggr"]) == 2
    assert "did you mean 'dagger'?" in capsys.readouterr().err


@pytest.mark.parametrize("name", builtins())
def test_every_builtin_makes_sense(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Law: what kdcli brings along passes its own check, is listed, and needs no more than files."""
    assert main(["recipes", "check", name, "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["needs"]) <= {"teacher", "second", "third"}
    assert main(["recipes", "list"]) == 0
    assert name in capsys.readouterr().out


TASKS = ["choose", "reach", "again"]
TEACHERS = {
    "q": ["q"],
    "value-and-policy": ["critic"],
    "robot-control": ["reach"],
    "multi-task": TASKS,
    "continual": TASKS,
}
VALUES = {"q": ["tau=1.0"], "robot-control": ["curriculum=env:kdcli/Reach-v0->kdcli/Reach-v0"]}


@pytest.mark.parametrize("name", builtins())
def test_every_builtin_runs(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Law: what kdcli brings along ends with a bench of its student, on toy teachers with little of everything."""
    recipe = read_recipe(builtins()[name])
    given = dict(zip(("teacher", "second", "third"), TEACHERS.get(name, ["choose", "again"]), strict=False))
    words = [f"{key}={given[key]}.safetensors" for key in recipe.given if key in given] + VALUES.get(name, [])
    for step in recipe.step:
        if "labels" in DISTILLING.get(step["do"], ()):
            words += [f"{step['name']}.{key}={value}" for key, value in TINY.items()]
        elif step["do"] == "bench":
            words += [f"{step['name']}.{key}={value}" for key, value in BENCH.items()]
    assert main(["run", name, "-o", "out", "-q", "--json", *(w for word in words for w in ("--set", word))]) == 0
    answer = json.loads(capsys.readouterr().out)
    scores = [step["facts"]["scores"] for step in answer["steps"] if step["do"] == "bench"]
    assert scores
    assert all(score > 0.5 for found in scores for score in found.values() if score is not None)


DISTILLING = {"distill": TINY, "distill-many": TINY}
BENCH = {"episodes": 20, "latency_budget": "0s", "linear_budget": "0s"}


SMALLER = """
about = "fewer units, then fewer bits"

[[step]]
do = "prune"
agent = "choose.safetensors"
to = "params<=200"
rounds = 1
recover = 100
labels = 200
episodes = 20
states = 200

[[step]]
do = "quantize"
agent = "@prune"
scheme = "int8"
episodes = 20
states = 200
latency_budget = "0s"
"""


def test_a_step_that_does_not_get_there_is_an_exit_code(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Law: pruning and quantization are steps as the others; their verdicts are the run's."""
    Path("my.toml").write_text(SMALLER)
    codes = {"passed": 0, "failed": 1, "undecided": 3}
    code = main(["run", "my.toml", "-o", "out", "-q", "--json"])
    made = json.loads(capsys.readouterr().out)["steps"]
    assert made[0]["facts"]["params"] <= 200
    assert made[0]["facts"]["verdicts"] == ["passed"]
    assert code == codes[made[1]["facts"]["verdicts"][0]]
    assert main(["run", "my.toml", "-o", "no", "-q", "--set", "prune.min_score=1.5"]) == 1


def test_the_readme_tells_a_recipe(place: Path) -> None:
    """Law: the recipe in README makes sense, as it stands there."""
    told = (REPO / "README.md").read_text().partition("### Recipes")[2].partition("```toml\n")[2]
    Path("readme.toml").write_text(told.partition("```")[0])
    assert main(["recipes", "check", "readme.toml", "-q"]) == 0


REFUSED = [
    ('dataset = "@data"\nvia = ["mlp:16"]', "dataset is not for chains"),
    ('student = "gru:8"\naugment = "gaussian:0.1"', "augment would change nothing"),
    ('student = "mlp:8,bogus=1"', "'mlp' has no option 'bogus'"),
    ('loss = ["nll"]\ntau = "8"', "tau would change nothing"),
    ('loss = ["mean"]', "loss='mean' compares continuous actions"),
    ('loss = ["value"]', "this loss needs the teacher's value"),
    ('augment = "shift:4"', "this augmentation does not fit"),
]


@pytest.mark.parametrize(("options", "what"), REFUSED)
def test_check_refuses_what_run_would(options: str, what: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Law: what a step cannot do is said by `recipes check`, before the steps in front of it have worked for hours."""
    steps = '[[step]]\nname = "data"\ndo = "rollout"\nagent = "choose.safetensors"\n[[step]]\nname = "student"\n'
    Path("hours.toml").write_text(f'about = "x"\n{steps}do = "distill"\nteacher = "choose.safetensors"\n{options}\n')
    assert main(["recipes", "check", "hours.toml"]) == 2
    assert f"step student: {what}" in capsys.readouterr().err
    assert main(["run", "hours.toml", "-o", "hours", "-q"]) == 2
    assert not Path("hours").exists()
