"""The corpus: whatever is in a file, inspect, load and export refuse it or read it right.

No code runs, no traceback shows, nothing takes ten seconds or two gigabytes, and nothing is left behind. A sample of it
is tried in every test run, all of it with `-m slow`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import harness
import pickled
import pytest
from cases import CANARY, Case, Law
from corpus import chosen, everything
from seeds import SEEDS, read_all
from tables import TABLES
from worker import Outcome, Watch, faults, measured

ONE_IN = 120
N_WORKERS = min(4, os.cpu_count() or 1)
# Unpickled by Python itself, these leave the canary behind: enough to know that the others are made as they must be.
LIVE = (
    *("posix.system", "os.system", "builtins.eval", "builtins.exec", "builtins.getattr", "operator.attrgetter"),
    *("importlib.import_module", "subprocess.check_output", "io.FileIO", "pickle.loads"),
    *("INST", "OBJ", "BUILD __setstate__ of a namespace", "copyreg extension"),
)
# Each in a process of its own, forked from one that has imported nothing.
UNPICKLE = """
import os, pickle, sys
sys.path.insert(0, "")
for name in sys.argv[2:]:
    if not os.fork():
        os.chdir(f"{sys.argv[1]}/{name}")
        pickle.load(open("pickle", "rb"))
        os._exit(0)
    os.wait()
"""


def tried(folder: Path, one_in: int) -> list[harness.Result]:
    """What became of one case in `one_in` of each format and kind of harm; the table is printed at the end."""
    cases = everything(read_all(folder))
    results = harness.run(folder, chosen(cases, one_in), cases, N_WORKERS)
    TABLES.append(harness.table(results))
    return results


def failures(results: list[harness.Result]) -> list[str]:
    """A line for each case that did not end as it may."""
    failed = [result for result in results if result.problems]
    return [f"{result.title}: {result.problems[0]}" for result in failed]


def test_a_sample(seed_folder: Path) -> None:
    """Law: files made to harm and files harmed on the way are refused with exit code 4, or read right; nothing else."""
    results = tried(seed_folder, ONE_IN)
    assert failures(results) == []
    assert {result.format for result in results} == {*SEEDS, "none"}


@pytest.mark.slow
def test_everything(seed_folder: Path) -> None:
    """Law: the same for all of the corpus."""
    assert failures(tried(seed_folder, 1)) == []


def test_cases_have_names_of_their_own(seed_folder: Path) -> None:
    """Law: no two cases have the same title, and every format is harmed in more than 100 ways."""
    cases = everything(read_all(seed_folder))
    titles = [case.title for case in cases]
    assert len(set(titles)) == len(titles)
    assert all(sum(case.format == name for case in cases) > 100 for name in SEEDS)


def test_the_payloads_are_live(tmp_path: Path) -> None:
    """Law: what the corpus proves harmless is not harmless by itself: unpickled by Python, it runs."""
    made = {**pickled.CALLS, **pickled.TRICKS}
    for name in LIVE:
        (tmp_path / name).mkdir()
        (tmp_path / name / "canary_module.py").write_text(f"open({CANARY!r}, 'w').close()\n")
        (tmp_path / name / "pickle").write_bytes(pickled.whole(made[name]))
    subprocess.run([sys.executable, "-c", UNPICKLE, str(tmp_path), *LIVE], capture_output=True, check=True)
    assert [name for name in LIVE if not (tmp_path / name / CANARY).exists()] == []


@pytest.mark.parametrize(
    ("law", "code", "told"),
    [
        (Law.REFUSED, 0, []),
        (Law.REFUSED, 2, ["kdcli: what"]),
        (Law.RIGHT, 70, ["kdcli: internal error"]),
        (Law.REFUSED, 4, []),
        (Law.REFUSED, 4, ["kdcli: a", "b", "c", "d"]),
        (Law.REFUSED, 4, ["kdcli: \x1b[31mred"]),
        (Law.REFUSED, 4, ["kdcli: x" * 1000]),
        (Law.REFUSED, 4, ["Traceback (most recent call last):"]),
        (Law.REFUSED, 4, ["kdcli: x", "std::bad_alloc"]),
    ],
)
def test_faults_are_seen(law: Law, code: int, told: list[str]) -> None:
    """Law: another exit code, more or fewer lines, raw control characters and tracebacks are all told as problems."""
    assert faults(law, code, told)
    assert not faults(Law.REFUSED, 4, ["kdcli: what", "why", "fix"])


def test_the_watch_sees_code() -> None:
    """Law: programs started, classes found by pickle and files written elsewhere are seen; its own folder is free."""
    watch = Watch(home="/home/x", on=True)
    watch("os.system", (b"touch hacked",))
    watch("pickle.find_class", ("os", "system"))
    watch("open", ("/home/y/hacked", "w", 0))
    watch("open", ("/home/x/out/agent", "w", 0))
    watch("open", ("/home/y/read", "r", 0))
    assert len(watch.seen) == 3


def test_memory_is_seen() -> None:
    """Law: memory that was taken and given back is counted."""
    outcome = Outcome()
    with measured(outcome):
        taken = b"x" * (300 * 2**20)
        del taken
    assert outcome.megabytes > 250


@pytest.mark.parametrize(
    ("program", "problem"), [("import os; os.abort()", "died"), ("import time; time.sleep(60)", "no answer")]
)
def test_a_worker_that_ends_is_a_failure(
    program: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: a case that ends or blocks the process that reads it has failed, and the next one is tried all the same."""
    script = tmp_path / "worker.py"
    script.write_text(f"import sys\nprint('{{\"ready\": 1}}', flush=True)\nsys.stdin.readline()\n{program}\n")
    monkeypatch.setattr(harness, "WORKER", script)
    monkeypatch.setattr(harness, "PATIENCE", 1.0)
    case = Case("x", "y", "z", Law.REFUSED, lambda folder: folder)
    results = harness.run(tmp_path, [0, 1], [case, case], 1)
    assert [problem in result.problems[0] for result in results] == [True, True]
