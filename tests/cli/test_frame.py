"""The frame around the commands: exit codes, streams, signals, lazy imports."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import needs
import pytest
from ran import REPO, Ran

from kdcli.cli.commands import COMMANDS
from kdcli.cli.main import split_globals

Kdcli = Callable[..., Ran]
Program = Callable[..., "subprocess.Popen[str]"]

HEAVY = {"torch", "onnxruntime", "gymnasium", "matplotlib"}
WRITTEN = [name for name in COMMANDS if importlib.util.find_spec(f"kdcli.cli.{name}")]


@pytest.mark.parametrize(
    ("how", "code", "what"),
    [
        ("done", 0, ""),
        ("gate", 1, ""),
        ("undecided", 3, ""),
        ("refused", 4, "kdcli: x.zip is corrupt\nits digest differs\ncopy it again\n"),
        ("interrupt", 130, "kdcli: interrupted\n"),
        ("bug", 70, "kdcli: internal error: ZeroDivisionError: division by zero\nthis is a bug in kdcli"),
        ("exit", 70, "kdcli: internal error: SystemExit: 1\n"),
        ("memory", 2, "kdcli: out of memory\n8 GB\n"),
        ("full", 2, "kdcli: no space left to write (student.onnx)\n"),
        ("denied", 2, "kdcli: the system refused an operation (student.onnx)\nPermission denied\n"),
        ("worker", 2, "kdcli: the system refused an operation\nBroken pipe\n"),
        ("missing", 2, "kdcli: minari is not installed\n"),
    ],
)
def test_each_end_has_its_exit_code(kdcli: Kdcli, how: str, code: int, what: str) -> None:
    """Law: the exit code says how it ended, an error has at most three lines on stderr, and no traceback."""
    ran = kdcli("end", how)
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith(what)
    assert len(ran.err.splitlines()) == (0 if not what else 1 if code == 130 else 3)
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("argv", [("end", "bug", "--debug"), ("--debug", "end", "bug")])
def test_debug_shows_the_traceback(kdcli: Kdcli, argv: tuple[str, ...]) -> None:
    """Law: --debug, before or after the command, shows where an error came from; the code stays."""
    ran = kdcli(*argv)
    assert ran.code == 70
    assert "Traceback" in ran.err
    assert "fake_commands.py" in ran.err


@pytest.mark.parametrize(
    ("argv", "what", "way_out"),
    [
        (("lst",), "kdcli: unknown command 'lst'\nknown: ", "did you mean 'list'?"),
        (("list", "--nope"), "kdcli: No such option: --nope", "see: kdcli list --help"),
        (("--nope",), "kdcli: No such option: --nope", "see: kdcli --help"),
        (("tune", "--env", "x"), "kdcli: Missing argument 'teacher'.", "see: kdcli tune --help"),
        (("end", "bug", "more"), "kdcli: Got unexpected extra argument(s) (more)", "see: kdcli end --help"),
    ],
)
def test_wrong_words_are_answered_shortly(kdcli: Kdcli, argv: tuple[str, ...], what: str, way_out: str) -> None:
    """Law: a mistyped command line exits 2 with at most three lines, the last one the way out."""
    ran = kdcli(*argv)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(what)
    assert ran.err.splitlines()[-1] == way_out
    assert len(ran.err.splitlines()) <= 3


def test_a_row_without_its_module_is_our_bug(kdcli: Kdcli) -> None:
    """Law: a command that cannot be loaded is a bug of kdcli, not a usage error that hides it."""
    ran = kdcli("absent")
    assert ran.code == 70
    assert "has no attribute 'absent'" in ran.err


@pytest.mark.parametrize("argv", [("--version",), ("list", "--version"), ("--version", "nonsense")])
def test_version_wherever_it_stands(kdcli: Kdcli, argv: tuple[str, ...]) -> None:
    """Law: --version answers on stdout, before or after a command."""
    ran = kdcli(*argv)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("kdcli ")


def test_no_words_show_the_help(kdcli: Kdcli, capsys: pytest.CaptureFixture[str]) -> None:
    """Law: kdcli alone is a question, answered by the help page with every command on it."""
    assert kdcli().code == 0
    page = capsys.readouterr().out
    assert all(re.search(rf"^  {name} ", page, re.M) for name in COMMANDS)


def test_globals_after_two_dashes_are_words() -> None:
    """Law: the global options are taken from anywhere before `--`, and from nowhere after it."""
    flags, words = split_globals(["-q", "bench", "a", "--debug", "--", "-q"])
    assert flags == {"--quiet", "--debug"}
    assert words == ["bench", "a", "--", "-q"]


@pytest.mark.parametrize("quiet", [False, True])
def test_stdout_is_the_answer(program: Program, quiet: bool) -> None:
    """Law: prints of libraries, warnings, notes and progress go to stderr, one line each; --quiet drops them all."""
    ran = program("stray", *(["--quiet"] if quiet else []))
    out, err = ran.communicate(timeout=20)
    assert (ran.returncode, out) == (0, "student.safetensors\n")
    said = ["Hello from a library", "warning: old style", "took the small one"]
    last = "play: 100% (3 of 3) in 0s, return 1.5, kind x"
    assert err.splitlines() == ([] if quiet else [*said, last])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_command_leaves_nothing_behind(program: Program, tmp_path: Path, number: int, code: int) -> None:
    """Law: Ctrl-C exits 130 and SIGTERM 143, with one line and without a half-written file."""
    ran = program("slow", "-o", str(tmp_path / "x"))
    assert ran.stderr is not None
    assert ran.stderr.readline() == "half-way\n"
    assert list(tmp_path.iterdir())
    ran.send_signal(number)
    _, err = ran.communicate(timeout=20)
    assert (ran.returncode, len(err.splitlines())) == (code, 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("argv", [("flood",), ("flood", "--json"), ("--help",), ("--version",)])
def test_a_closed_pipe_is_no_error(program: Program, argv: tuple[str, ...], unbuffered: str) -> None:
    """Law: when nobody reads stdout any more, as in `| head`, kdcli stops with 141 and says nothing."""
    read, write = os.pipe()
    os.close(read)
    ran = program(*argv, stdout=write, env={"PYTHONUNBUFFERED": unbuffered})
    os.close(write)
    assert (ran.communicate(timeout=20)[1], ran.returncode) == ("", 141)


def test_a_reader_that_leaves_early(program: Program) -> None:
    """Law: the same when the reader leaves half-way."""
    ran = program("flood")
    assert ran.stdout is not None
    assert ran.stderr is not None
    ran.stdout.readline()
    ran.stdout.close()
    assert ran.wait(timeout=20) == 141
    assert ran.stderr.read() == ""


@needs.dev_full
def test_a_full_disk_under_stdout(program: Program) -> None:
    """Law: an answer that cannot be written is a three-line error and exit 2, never a success."""
    with open("/dev/full", "w") as full:
        ran = program("flood", stdout=full)
        _, err = ran.communicate(timeout=20)
    assert ran.returncode == 2
    assert err.splitlines()[0] == "kdcli: no space left to write"
    assert len(err.splitlines()) == 3


@pytest.mark.parametrize(("closed", "code"), [(1, 2), (2, 4)])
def test_streams_closed_from_the_start(program: Program, closed: int, code: int) -> None:
    """Law: without stdout an answer is an error; without stderr the exit code speaks, and stdout stays clean."""
    argv = ("stray",) if closed == 1 else ("end", "refused")
    ran = program(*argv, closed=closed)
    out, _ = ran.communicate(timeout=20)
    assert (ran.returncode, out) == (code, "")


def _loaded(*argv: str) -> set[str]:
    """Every module in the process when a command line is done."""
    # -X importtime would miss what importlib.import_module brings in.
    source = "import sys; from kdcli.cli.main import main; main(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    ran = subprocess.run([sys.executable, "-c", source, *argv], capture_output=True, text=True, cwd=REPO, timeout=60)
    return set(ran.stderr.split())


def test_help_loads_nothing_heavy() -> None:
    """Law: the first page imports no command, no pydantic, no rich and none of the libraries that compute."""
    loaded = _loaded("--help")
    assert "kdcli.cli.commands" in loaded
    assert not loaded & {*HEAVY, "scipy", "numpy", "pydantic", "rich"}
    assert not loaded & {f"kdcli.cli.{name}" for name in COMMANDS}


@pytest.mark.parametrize("name", WRITTEN)
def test_help_of_a_command_loads_nothing_heavy(name: str) -> None:
    """Law: no page of help imports a library that computes, and no command takes a global option for itself."""
    loaded = _loaded(name, "--help")
    assert f"kdcli.cli.{name}" in loaded
    assert not loaded & HEAVY
    page = subprocess.run([sys.executable, "-m", "kdcli", name, "-h"], capture_output=True, text=True, cwd=REPO).stdout
    assert not re.search(r"^ +(-\w, )?--(quiet|debug|version)\b", page, re.M)


def test_help_is_quick() -> None:
    """Law: the help page takes less than 0.4 s of processor time (least of three runs: the machine is shared)."""

    def cpu_s() -> float:
        before = os.times()
        subprocess.run([sys.executable, "-m", "kdcli", "--help"], capture_output=True, cwd=REPO, check=True)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert min(cpu_s() for _ in range(3)) < 0.4
