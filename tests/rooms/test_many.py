"""What is written of many teachers and many tasks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_teachers import CHOOSE, REACH, choose_teacher, reach_teacher

import kdcli
from kdcli.agents import store
from kdcli.agents.agent import Agent
from kdcli.cli.main import main
from kdcli.distillation import teacher_chains as many
from kdcli.distillation.loop import Distilled
from kdcli.envs.vector import Vector
from kdcli.errors import Exit, UsageError
from kdcli.rollouts.evaluate import play

OPTIONS: dict[str, Any] = {
    "student": "mlp:8x8",
    "labels": 900,
    "rounds": 3,
    "updates": 600,
    "episodes": 8,
    "envs": 4,
}
FEW = ["--labels", "900", "--rounds", "3", "--updates", "600", "--episodes", "8", "--envs", "4", "--quiet"]


def saved(folder: Path, *agents: Agent) -> list[str]:
    return [str(store.save(folder / f"teacher-{i}.safetensors", agent, {})) for i, agent in enumerate(agents)]


def weak() -> Agent:
    """Sees the signals and does the opposite."""
    made = choose_teacher()
    made.policy.network.head.weight.neg_()
    return made


def test_each_task_is_a_file_that_acts_alone(tmp_path: Path) -> None:
    """Law: a folder holds an agent for each task, and says how many weights they have together, shared ones once."""
    files, out = saved(tmp_path, reach_teacher(), choose_teacher()), tmp_path / "out"
    assert main(["distill-many", *files, "-o", str(out), "--student", "mlp:8x8", *FEW]) == Exit.DONE
    record = json.loads((out / "tasks.json").read_text())
    assert sorted(p.name for p in out.iterdir()) == sorted([*(t["file"] for t in record["tasks"]), "tasks.json"])
    students = [store.load(out / t["file"]) for t in record["tasks"]]
    assert record["params"] == sum(s.n_params for s in students) - (8 * 8 + 8)
    assert play(students[0], Vector(REACH, 8), range(8)).returns.mean() > -6
    assert play(students[1], Vector(CHOOSE, 8), range(8)).returns.mean() > 18
    assert all(t["score"] > 0.9 for t in record["tasks"])
    again = tmp_path / "again"
    assert main(["distill-many", *files, "-o", str(again), "--student", "mlp:8x8", *FEW]) == Exit.DONE
    assert all((again / p.name).read_bytes() == p.read_bytes() for p in out.iterdir())
    assert main(["distill-many", *files, "-o", str(out), *FEW]) == Exit.USAGE


def test_tasks_in_turn_say_what_was_forgotten(tmp_path: Path) -> None:
    """Law: in turn, tasks.json has the score of every task after every task, and what of it was lost."""
    how = {"order": "in-turn", "share": "all", "keep": "ewc@1"}
    record = kdcli.distill_many([choose_teacher(), choose_teacher(16)], tmp_path / "out", **OPTIONS, **how).summary()
    assert [len(row) for row in record["scores"]] == [1, 2]
    assert record["forgetting"] == [record["scores"][0][0] - record["scores"][1][0]]
    assert record["params"] == store.load(tmp_path / "out" / record["tasks"][1]["file"]).n_params
    assert [t["file"] for t in record["tasks"]] == ["kdcli-Choose-v0.safetensors", "kdcli-Choose-v0-task2.safetensors"]


def test_a_chain_by_assistants_and_generations(tmp_path: Path) -> None:
    """Law: `--via` and `--generations` are links of one chain, which the file records; the last is kept."""
    [file], out = saved(tmp_path, choose_teacher()), tmp_path / "student.safetensors"
    words = ["--via", "mlp:16", "--generations", "2", "--student", "mlp:8"]
    assert main(["distill", file, "-o", str(out), *words, *FEW]) == Exit.DONE
    student, made = store.load(out), made_of(out)
    assert [link["student"] for link in made["chain"]] == ["mlp:16", "mlp:8", "mlp:8"]
    assert student.n_params == 3 * 8 + 8 + 8 * 3 + 3
    assert play(student, Vector(CHOOSE, 8), range(8)).returns.mean() > 18


def test_the_best_generation_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: of several generations that of the best return is written, not the last; assistants are no candidates."""
    found = [Distilled(made, ("kl",), ()) for made in (choose_teacher(64), choose_teacher(16), weak())]
    monkeypatch.setattr(many, "assistant_chain", lambda *_: tuple(found))
    out = tmp_path / "student.safetensors"
    kdcli.distill(choose_teacher(), out, **OPTIONS, via="mlp:16", generations=2)
    assert store.load(out).n_params == choose_teacher(16).n_params


def made_of(path: Path) -> dict[str, object]:
    from kdcli import artifact

    return artifact.read_tensors(path)[0]["made"]


def test_the_best_teacher_teaches_alone(tmp_path: Path) -> None:
    """Law: `--teachers best` measures all in the env, and the record says who was chosen by what."""
    files, out = saved(tmp_path, weak(), choose_teacher()), tmp_path / "student.safetensors"
    words = ["distill", files[0], "--also", files[1], "-o", str(out), "--teachers", "best", "--student", "mlp:8"]
    assert main([*words, *FEW]) == Exit.DONE
    election = made_of(out)["chain"][0]  # type: ignore[index]
    assert election["elected"] == 1
    assert election["mean_returns"][0] < 10 < 18 < election["mean_return"]
    assert play(store.load(out), Vector(CHOOSE, 8), range(8)).returns.mean() > 18


def test_teachers_in_turn(tmp_path: Path) -> None:
    """Law: `--teachers in-turn` leaves a student of the last one."""
    out = tmp_path / "student.safetensors"
    with torch.no_grad():
        young = reach_teacher(16)
        young.policy.network.head.weight *= 0.2
    done = kdcli.distill([young, reach_teacher()], out, **{**OPTIONS, "rounds": 4}, teachers="in-turn")
    assert len(done.rounds) == 4
    assert play(store.load(out), Vector(REACH, 8), range(8)).returns.mean() > -6


WRONG: list[tuple[str, Callable[[Path], object]]] = [
    (
        "generations would change nothing",
        lambda p: kdcli.distill([reach_teacher()] * 2, p, **OPTIONS, teachers="in-turn", generations=2),
    ),
    ("better than random", lambda p: kdcli.distill_many([weak(), reach_teacher()], p, **OPTIONS)),
    ("combine would change nothing", lambda p: kdcli.distill_many([reach_teacher()], p, **OPTIONS, combine="value")),
    ("teachers alone", lambda p: kdcli.distill_many([reach_teacher()], p, **OPTIONS, reinforce="ppo")),
]


@pytest.mark.parametrize(("words", "work"), WRONG, ids=[words for words, _ in WRONG])
def test_what_does_not_go_together(words: str, work: Callable[[Path], object], tmp_path: Path) -> None:
    """Law: chains and tasks that make no sense are errors with a way out, and leave nothing."""
    with pytest.raises(UsageError) as raised:
        work(tmp_path / "out")
    assert words in str(raised.value)
    assert raised.value.fix
    assert list(tmp_path.iterdir()) == []
