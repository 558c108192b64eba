"""Locks on every platform, also where there is no fcntl."""

from __future__ import annotations

import ast
import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from toy_teachers import reach_teacher

from kdcli.agents import store
from kdcli.cli.main import main
from kdcli.locks import claim, claim_folder

REPO = Path(__file__).parents[2]
UNIX = {"fcntl", "resource", "termios", "pwd", "grp", "tty", "pty"}
FORKS = {"fork", "forkpty", "register_at_fork"}


def locking(handle: int, mode: int, n: int) -> None:
    """Windows' msvcrt.locking, as it answers: EACCES where another holds the bytes."""
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, n)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # lockf's do not bar the process itself
    except BlockingIOError:
        raise PermissionError(errno.EACCES, "Permission denied") from None


@pytest.fixture(params=["unix", "windows"])
def platform(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each platform in turn."""
    if request.param == "windows":
        monkeypatch.setitem(sys.modules, "fcntl", None)
        monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(locking=locking, LK_NBLCK=2))
    return request.param


def test_one_holds_a_lock(platform: str, tmp_path: Path) -> None:
    """Law: of those who claim a file or a folder one gets it, and the next when it is done."""
    for take, place in ((claim, tmp_path / "locks" / "x"), (claim_folder, tmp_path)):
        with take(place) as mine, take(place) as other:
            assert (mine, other) == (True, False)
        with take(place) as again:
            assert again


def test_whoever_waits_gets_it(platform: str, tmp_path: Path) -> None:
    """Law: with `wait`, a lock is had when the process that holds it has gone."""
    hold = "h = os.open(sys.argv[1], 66); fcntl.flock(h, 2); print(flush=True); time.sleep(.3)"
    code = f"import fcntl, os, sys, time; {hold}"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "x")], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with claim(tmp_path / "x") as mine:
            assert not mine
        with claim(tmp_path / "x", wait=True) as mine:
            assert mine


def test_a_folder_gets_no_file(platform: str, tmp_path: Path) -> None:
    """Law: claiming a folder leaves nothing in it."""
    with claim_folder(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_no_module_needs_unix() -> None:
    """Law: what not every platform has is imported under a guard, and nothing forks."""
    found = []
    for path in sorted((REPO / "kdcli").rglob("*.py")):
        tree = ast.parse(path.read_text())
        guarded = {id(n) for t in ast.walk(tree) if isinstance(t, ast.Try) for b in t.body for n in ast.walk(b)}
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if UNIX & set(names) and id(node) not in guarded:
                found.append(f"{path.name}:{node.lineno}")
            if isinstance(node, ast.Attribute) and node.attr in FORKS and getattr(node.value, "id", "") == "os":
                found.append(f"{path.name}:{node.lineno}")
    assert found == []


def test_a_dataset_is_written(platform: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: on every platform a command writes its folder."""
    monkeypatch.delattr(os, "fork")
    teacher = store.save(tmp_path / "teacher.safetensors", reach_teacher(4), {})
    assert main(["rollout", str(teacher), "-o", str(tmp_path / "data"), "--steps", "40", "--envs", "1", "-q"]) == 0
    assert (tmp_path / "data" / "manifest.json").exists()
