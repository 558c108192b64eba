"""`kdcli rollout`: from a file to a dataset, through interruptions of every kind."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ran import REPO, Ran

from kdcli.agents import store
from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.observation import Preprocess
from kdcli.agents.policy import Policy
from kdcli.datasets import Dataset
from kdcli.networks.mlp import MLP
from kdcli.rollouts import record as step
from kdcli.spec import EnvSpec, box

Kdcli = Callable[..., Ran]
SMALL = ("--steps", "700", "--shard-rows", "300", "--envs", "4")


def _agent(path: Path, gain: float, env: EnvSpec | None) -> Path:
    network = MLP(2, (), 1)
    with torch.no_grad():
        network.head.weight.fill_(-gain)
        network.head.bias.zero_()
    policy = Policy(network, ActionRule(box((1,), -1.0, 1.0)), "mean").eval()
    return store.save(path, Agent(Preprocess(box((2,), dtype="float64")), policy, path.stem, env), {})


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The file of an agent that plays Reach well."""
    path = tmp_path_factory.mktemp("agents") / "teacher.safetensors"
    return str(_agent(path, 1.5, EnvSpec("kdcli/Reach-v0")))


@pytest.fixture(scope="module")
def stray(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The file of an agent that plays badly and does not say where."""
    return str(_agent(tmp_path_factory.mktemp("agents") / "stray.safetensors", 0.2, None))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_answer_is_the_path(kdcli: Kdcli, teacher: str, tmp_path: Path) -> None:
    """Law: stdout holds the dataset's path alone, stderr what happened, and the dataset is there."""
    ran = kdcli("rollout", teacher, "-o", str(tmp_path / "d"), *SMALL)
    assert (ran.code, ran.out) == (0, f"{tmp_path / 'd'}\n")
    assert "rollout: 100% (700 of 700)" in ran.err
    assert len(Dataset.open(tmp_path / "d")) == 700


def test_the_answer_as_json(kdcli: Kdcli, teacher: str, tmp_path: Path) -> None:
    """Law: with --json one object says what was recorded, and the digest that names the dataset."""
    folder = tmp_path / "d"
    ran = kdcli("rollout", teacher, "-o", str(folder), *SMALL, "--json")
    returns = Dataset.open(folder).returns()
    assert json.loads(ran.out) == {
        "schema": "kdcli.rollout/1",
        "path": str(folder),
        "steps": 700,
        "episodes": len(returns),
        "mean_return": pytest.approx(returns.mean()),
        "sha256": hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest(),
    }


def test_every_policy(kdcli: Kdcli, teacher: str, stray: str, tmp_path: Path) -> None:
    """Law: each of the four ways to act is one option; teacher and student are on record by their files' digests."""
    for policy in ("teacher", "student", "mixed", "random"):
        extra = ("--student", stray) if policy in ("student", "mixed") else ()
        ran = kdcli("rollout", teacher, "-o", str(tmp_path / policy), *SMALL, "--policy", policy, *extra)
        assert ran.code == 0
        made = Dataset.open(tmp_path / policy).made
        assert made["config"]["policy"] == policy
        assert made["teacher"]["sha256"] == hashlib.sha256(Path(teacher).read_bytes()).hexdigest()
        assert bool(made["student"]) == bool(extra)


@pytest.mark.parametrize(
    ("argv", "code", "what"),
    [
        (("--policy", "student"), 2, "kdcli: --policy student needs a student"),
        (("--policy", "tutor"), 2, "kdcli: unknown value for --policy"),
        (("--beta", "0.5"), 2, "kdcli: --beta would change nothing"),
        (("--steps", "0"), 2, "kdcli: invalid value for --steps"),
        (("--env", "kdcli/Choose-v0"), 2, "kdcli: kdcli/Choose-v0 observes"),
        (("--env", "kdcli/Reech-v0"), 2, "kdcli: cannot make kdcli/Reech-v0"),
        (("--student", "absent.zip", "--policy", "mixed"), 2, "kdcli: absent.zip "),
    ],
)
def test_mistakes(kdcli: Kdcli, teacher: str, tmp_path: Path, argv: tuple[str, ...], code: int, what: str) -> None:
    """Law: a mistake is three lines at most, its exit code, and no output."""
    ran = kdcli("--quiet", "rollout", teacher, "-o", str(tmp_path / "d"), *SMALL, *argv)
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith(what)
    assert len(ran.err.splitlines()) <= 3
    assert not (tmp_path / "d").exists()


def test_an_agent_without_an_env(kdcli: Kdcli, stray: str, tmp_path: Path) -> None:
    """Law: the env must be known, from the file or by --env."""
    ran = kdcli("rollout", stray, "-o", str(tmp_path / "d"), *SMALL)
    assert (ran.code, ran.err.splitlines()[-1]) == (2, "name it with --env when it is loaded")
    assert kdcli("rollout", stray, "-o", str(tmp_path / "d"), *SMALL, "--env", "kdcli/Reach-v0").code == 0


def test_an_existing_dataset_is_safe(kdcli: Kdcli, teacher: str, tmp_path: Path) -> None:
    """Law: a finished dataset is exit 2 without --force, and made anew with it."""
    argv = ("rollout", teacher, "-o", str(tmp_path / "d"), *SMALL)
    assert kdcli(*argv).code == 0
    before = content(tmp_path / "d")
    ran = kdcli("-q", *argv, "--seed", "1")
    assert (ran.code, ran.err.splitlines()[0]) == (2, f"kdcli: {tmp_path / 'd'} exists")
    assert content(tmp_path / "d") == before
    assert kdcli(*argv, "--seed", "1", "--force").code == 0
    assert content(tmp_path / "d") != before


def test_a_damaged_output_is_refused(kdcli: Kdcli, teacher: str, tmp_path: Path) -> None:
    """Law: a manifest that cannot be read is exit 4, and is not overwritten."""
    (tmp_path / "manifest.json").write_text("{")
    ran = kdcli("-q", "rollout", teacher, "-o", str(tmp_path), *SMALL, "--force")
    assert (ran.code, len(ran.err.splitlines())) == (4, 3)
    assert content(tmp_path) == {"manifest.json": b"{"}


def test_ctrl_c(kdcli: Kdcli, teacher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: Ctrl-C is exit 130; the same command goes on from the shards that are kept, to the same bytes."""
    argv = ("rollout", teacher, *SMALL, "-o")
    kdcli(*argv, str(tmp_path / "whole"))
    played: list[int] = []

    def interrupted(*args: object) -> object:
        played.append(1)
        if len(played) == 2:
            raise KeyboardInterrupt
        return record(*args)

    record = step.record
    monkeypatch.setattr(step, "record", interrupted)
    ran = kdcli(*argv, str(tmp_path / "d"))
    assert (ran.code, ran.out) == (130, "")
    assert "1 of 3 shards are kept: the same command goes on from there" in ran.err
    ran = kdcli(*argv, str(tmp_path / "d"))
    assert "continuing at shard 2 of 3" in ran.err
    assert len(played) == 4
    assert content(tmp_path / "d") == content(tmp_path / "whole")


def _shards(folder: Path) -> int:
    return len(list(folder.glob("shard-*"))) if folder.exists() else 0


def test_kill_9(kdcli: Kdcli, teacher: str, tmp_path: Path) -> None:
    """Law: killed at random moments and continued, a rollout is the same folder, byte for byte."""
    argv = ["rollout", teacher, "--steps", "15000", "--shard-rows", "250", "--noise", "0.1", "-o"]
    assert kdcli(*argv, str(tmp_path / "whole")).code == 0
    folder, moments = tmp_path / "d", random.Random(0)
    for _ in range(2):
        before = _shards(folder)
        words = [sys.executable, "-m", "kdcli", "-q", *argv, str(folder)]
        with subprocess.Popen(words, cwd=REPO, stderr=subprocess.PIPE) as run:
            while run.poll() is None and _shards(folder) <= before:
                time.sleep(0.005)
            time.sleep(moments.uniform(0.0, 0.1))
            run.kill()
    assert 2 <= _shards(folder) < 60
    assert kdcli(*argv, str(folder)).code == 0
    assert content(folder) == content(tmp_path / "whole")
