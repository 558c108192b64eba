"""One process that gives cases to kdcli, as a user would type it, and tells what became of them.

It reads the numbers of cases from stdin and writes a line of JSON for each. It has little memory, and watches what the
interpreter is asked to do: to start programs, to connect, to write files elsewhere, to unpickle.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import resource
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "rooms")]

import numpy as np  # noqa: E402
from cases import CANARY, Case, Law  # noqa: E402
from corpus import everything  # noqa: E402
from seeds import read_all  # noqa: E402

from kdcli.errors import KdcliError  # noqa: E402

SECONDS, MEGABYTES = 10.0, 2048
ROOM = 3 * 2**30  # more than is allowed, so that what takes too much is measured and not only stopped
OUTPUTS = {"inspect": None, "load": "agent.safetensors", "export": "policy.onnx"}
CODES = {
    Law.REFUSED: {4},
    Law.RIGHT: {0, 4},
    Law.SAFE: {0, 4},
    Law.LOADS: {0, 4},
    Law.OPEN: {0, 2, 4},
    Law.ASKED: {0, 2, 4},
}
FORBIDDEN = ("os.system", "os.exec", "os.fork", "os.forkpty", "os.spawn", "os.startfile", "pty.spawn", "socket.connect")
UNPICKLING = ("pickle.find_class",)
_RAW = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_STARVED = re.compile(r"bad_alloc|allocat|out of memory|MemoryError", re.IGNORECASE)
MODULE = f"open({CANARY!r}, 'w').close()\nmake = X = Wrapper = object\n"


@dataclass
class Watch:
    """What the interpreter was asked to do while a case was read; `home` is where files may be written."""

    home: str = "/nowhere"
    seen: list[str] = field(default_factory=list)
    on: bool = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """The audit hook."""
        if not self.on:
            return
        if event in FORBIDDEN or event in UNPICKLING:
            self.seen.append(f"{event} {str(arguments)[:80]}")
        elif event == "open" and isinstance(arguments[0], str) and _writes(arguments[1], arguments[2]):
            inside = os.path.abspath(arguments[0]).startswith((self.home, "/dev/null"))
            self.seen += [] if inside else [f"wrote {arguments[0][:80]}"]


def _writes(mode: str | None, flags: int) -> bool:
    return bool(mode and set(mode) & set("wax+")) or bool(mode is None and flags & (os.O_WRONLY | os.O_RDWR))


@dataclass
class Outcome:
    """What became of a case: exit codes by command, the error's lines, seconds of work, megabytes more than before."""

    codes: dict[str, int] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    megabytes: float = 0.0


class Worker:
    """The cases, and what the seeds do unharmed."""

    def __init__(self, folder: Path, watch: Watch) -> None:
        self.seeds = read_all(folder)
        self.cases = everything(self.seeds)
        self.watch = watch
        self.behaviour: dict[str, np.ndarray] = {}
        for name, seed in self.seeds.items():
            with contextlib.suppress(KdcliError):  # then the case of the seed itself tells
                self.behaviour[name] = behaviour(folder / name / seed.main, seed.options)

    def run(self, number: int) -> Outcome:
        """Give one case to every command."""
        outcome, case = Outcome(), self.cases[number]
        with tempfile.TemporaryDirectory(prefix="case") as name, _inside(Path(name)) as home:
            path = case.write(home / "in")
            before = _listing(home)
            for command in case.commands:
                output = OUTPUTS[command]
                self._try(case, command, path, home / "out" / output if output else None, outcome)
            if case.law is Law.LOADS and outcome.codes[case.commands[0]]:
                outcome.problems.append(f"it does not load: {' | '.join(outcome.lines)[:200]}")
            if 0 in outcome.codes.values() and not outcome.problems:
                outcome.problems += self._loaded(case, path, outcome, home)
            outcome.problems += _traces(home, before, outcome)
        return outcome

    def _try(self, case: Case, command: str, path: Path, output: Path | None, outcome: Outcome) -> None:
        words = [command, str(path), *case.options, "--quiet", *(["-o", str(output)] if output else [])]
        self.watch.home = str(path.parent.parent)
        with measured(outcome), self._watched(outcome):
            code, told = run(words)
        outcome.codes[command] = code
        outcome.lines = told or outcome.lines
        outcome.problems += [f"{command}: {problem}" for problem in faults(case.law, code, told)]

    @contextlib.contextmanager
    def _watched(self, outcome: Outcome) -> Iterator[None]:
        self.watch.seen, self.watch.on = [], True
        try:
            yield
        finally:
            self.watch.on = False
            outcome.problems += self.watch.seen

    def _loaded(self, case: Case, path: Path, outcome: Outcome, home: Path) -> list[str]:
        """What is wrong with an agent that was read from a case."""
        files = [path] + ([home / "out" / "agent.safetensors"] if outcome.codes.get("load") == 0 else [])
        problems = []
        for file in files:
            try:
                found = behaviour(file, case.options if file == path else ())
            except Exception as error:
                problems.append(f"it does not act: {type(error).__name__}: {str(error)[:200]}")
                continue
            wanted = self.behaviour.get(case.format)
            if case.law not in (Law.SAFE, Law.OPEN) and not (wanted is not None and np.array_equal(found, wanted)):
                problems.append("it acts otherwise than the seed")
            if not np.isfinite(found).all():
                problems.append("its actions are not finite")
        return problems


def faults(law: Law, code: int, told: list[str]) -> list[str]:
    """What is wrong with an exit code and the error's lines."""
    found = [] if code in CODES[law] else [f"exit code {code}: {' | '.join(told)[:300]}"]
    if code and not 1 <= len(told) <= 3:
        found.append(f"{len(told)} lines of error")
    if any(_RAW.search(line) for line in told):
        found.append("an error with control characters")
    if any(len(line) > 1000 for line in told):
        found.append("an error of endless lines")
    if any("Traceback" in line for line in told):
        found.append("a traceback")
    if code and _STARVED.search(" ".join(told)):
        found.append(f"stopped by the limit of memory only: {' | '.join(told)[:200]}")
    return found


def run(words: list[str]) -> tuple[int, list[str]]:
    """Exit code and lines on stderr of a command line."""
    from kdcli.cli.console import Console
    from kdcli.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    with warnings.catch_warnings():
        code = main(words, Console(out, err))
    return int(code), err.getvalue().splitlines()


def behaviour(path: Path, options: tuple[str, ...]) -> np.ndarray:
    """What the policy in a file does in some drawn situations: its actions, flat."""
    from kdcli.checkpoints.config import LoadConfig
    from kdcli.checkpoints.read import read_any

    names = (option.removeprefix("--").replace("-", "_") for option in options[::2])
    agent = read_any(path, LoadConfig(**dict(zip(names, options[1::2], strict=True))))
    obs = drawn(agent.observation, 16)
    if not getattr(agent, "state_size", 0):
        return np.asarray(agent.act(obs), np.float64).reshape(-1)
    state, found = np.zeros((16, agent.state_size), np.float32), []
    for _ in range(3):
        actions, state = agent.step(obs, state)
        found.append(np.asarray(actions, np.float64).reshape(-1))
    return np.concatenate(found)


def drawn(space: Any, n: int) -> np.ndarray:
    """Observations (n, *shape): small whole numbers, which every kind of space can hold."""
    from kdcli.spec import join_rows, parts

    rng = np.random.default_rng(0)
    columns = {}
    for name, part in parts(space).items():
        high = getattr(part, "n", None) or 2
        if type(part).__name__ == "MultiBinary":
            high = 2
        low = getattr(part, "start", 0)
        columns[name] = rng.integers(low, low + min(high, 100), (n, *part.shape)).astype(part.dtype)
    return join_rows(space, columns)


@contextlib.contextmanager
def measured(outcome: Outcome) -> Iterator[None]:
    """Seconds this process works, and its largest growth in memory."""
    Path("/proc/self/clear_refs").write_text("5")
    before, start = memory("VmRSS"), time.process_time()
    yield
    outcome.seconds = max(outcome.seconds, time.process_time() - start)
    outcome.megabytes = max(outcome.megabytes, memory("VmHWM") - before)
    if outcome.seconds > SECONDS:
        outcome.problems.append(f"{outcome.seconds:.1f} seconds")
    if outcome.megabytes > MEGABYTES:
        outcome.problems.append(f"{outcome.megabytes:.0f} megabytes")


def memory(key: str) -> float:
    """A figure of /proc/self/status, in megabytes."""
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"{key}:\s+(\d+) kB", text)[1]) / 1024  # type: ignore[index]


@contextlib.contextmanager
def _inside(home: Path) -> Iterator[Path]:
    """A folder for a case: its files in `in`, room for outputs in `out`, a working folder with a module in it."""
    home = home.resolve()
    for name in ("in", "out", "cwd"):
        (home / name).mkdir()
    (home / "cwd" / "canary_module.py").write_text(MODULE)
    there = Path.cwd()
    os.chdir(home / "cwd")
    try:
        yield home
    finally:
        os.chdir(there)


def _listing(home: Path) -> set[str]:
    """Every path under `home`, by name."""
    return {f"{base}/{name}" for base, folders, files in os.walk(home) for name in (*folders, *files)}


def _traces(home: Path, before: set[str], outcome: Outcome) -> list[str]:
    """What a case left behind that it should not have."""
    left = _listing(home) - before
    outputs = {command: str(home / "out" / output) for command, output in OUTPUTS.items() if output}
    wanted = {output for command, output in outputs.items() if outcome.codes.get(command) == 0}
    problems = [f"left behind: {path.removeprefix(str(home))[:100]}" for path in sorted(left - wanted)]
    problems += [f"no output: {path.removeprefix(str(home))}" for path in sorted(wanted - left)]
    if (home / "cwd" / CANARY).exists() or sys.modules.pop("canary_module", None):
        problems.append("CODE RAN")
    return problems


def main() -> None:
    """Serve until stdin ends."""
    folder = Path(sys.argv[1])
    sys.path.insert(0, "")
    sys.dont_write_bytecode = True
    watch = Watch()
    worker = Worker(folder, watch)
    warm = Path(tempfile.mkdtemp(prefix="warm"))
    for name, seed in worker.seeds.items():
        for command, output in OUTPUTS.items():
            run(
                [
                    command,
                    str(folder / name / seed.main),
                    *seed.options,
                    *(["-o", f"{warm}/{name}-{output}"] if output else []),
                ]
            )
    shutil.rmtree(warm)
    sys.addaudithook(watch)
    size = int(memory("VmSize") * 2**20)
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, size + ROOM))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps({"ready": len(worker.cases)}), file=answers, flush=True)
    for line in sys.stdin:
        outcome = worker.run(int(line))
        print(json.dumps({"number": int(line), **outcome.__dict__}), file=answers, flush=True)


if __name__ == "__main__":
    main()
