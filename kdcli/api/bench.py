"""`kdcli.bench`: agents side by side on the same initial states, with a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdcli.api.result import Result
from kdcli.benchmarks.config import BenchConfig
from kdcli.errors import UsageError
from kdcli.options import build
from kdcli.progress import Listener, silent
from kdcli.reports.config import ReportConfig

if TYPE_CHECKING:
    from kdcli.benchmarks.entry import BenchEntry
    from kdcli.checkpoints.config import LoadConfig
    from kdcli.reports.gates import Outcome
    from kdcli.spec import Json


def check(config: BenchConfig, report: ReportConfig, output: Path | None = None) -> None:
    """Say all that can be said before work begins.

    Raises:
        UsageError: a gate that cannot be read, a runtime that is not installed, or an output of another suffix.
    """
    from kdcli.runtimes.prepare import check as check_runtimes

    check_runtimes(config.runtimes)
    report.gates()
    if output is not None and output.suffix not in (".json", ".md"):
        raise UsageError(f"cannot write {output}", "a benchmark is written as .json or as .md", "name it bench.json")


def bench(
    *agents: Any,
    output: Path | str | None = None,
    force: bool = False,
    progress: Listener = silent,
    **options: Any,
) -> BenchResult:
    """Compare agents with the first one: size, latency, returns on the same initial states, and a verdict.

    Args:
        *agents: The reference first; each a path, a kdcli agent, or a Stable-Baselines3 model. ONNX files play
            through onnxruntime, all others through torch.
        output: Where to write the numbers, as `.json` or `.md`.
        force: Overwrite `output`.
        progress: Called with `kdcli.progress.Event` and `Note`.
        **options: Fields of `kdcli.benchmarks.config.BenchConfig`, `kdcli.reports.config.ReportConfig` (`gate`) and
            `kdcli.checkpoints.config.LoadConfig`.

    Raises:
        UsageError: no env is known, an agent does not fit it, or an option cannot be read.
        RefusedError: a file is damaged, unsafe or unsupported.
    """
    from kdcli import artifact
    from kdcli.agents.threads import one_thread
    from kdcli.api.envs import with_env_id
    from kdcli.checkpoints.config import LoadConfig
    from kdcli.compression.comparison import measure

    source, config, report = build(with_env_id(options), LoadConfig, BenchConfig, ReportConfig)
    path = None if output is None else Path(output)
    check(config, report, path)
    if path is not None:
        artifact.refuse_existing(path, force)
    if not agents:
        raise UsageError("no agent is given", "", "give the reference first, then those to compare with it")
    entries = _entries(agents, source, progress)
    with one_thread():
        record, outcomes = measure(entries, config, report.gates(), report.per_episode, progress)
    result = BenchResult(record, tuple(outcomes))
    if path is not None:
        result.save(path, force)
    return result


def _entries(agents: Sequence[Any], source: LoadConfig, listener: Listener) -> list[BenchEntry]:
    """The agents made ready to compete, files under the shortest names that tell them apart."""
    from kdcli.api.agents import find
    from kdcli.benchmarks.entries import enter
    from kdcli.checkpoints.read import find_file, sniff

    # Statistics that are named belong to the checkpoints among the files: the other kinds have their own.
    complete = source.model_copy(update={"vecnormalize": "auto"})
    found = []
    for agent in agents:
        is_file = isinstance(agent, str | Path)
        own = complete if is_file and sniff(find_file(Path(agent))) != "sb3" else source
        found.append(find(agent, own, listener))
    return enter([one.file for one in found], [one.agent for one in found])


@dataclass(frozen=True, eq=False, repr=False)
class BenchResult(Result):
    """What was measured.

    Attributes:
        record: Every number as JSON values, schema `kdcli.bench/1`.
        gates: Each gate that was asked for, passed, failed or undecided.
    """

    record: Json
    gates: tuple[Outcome, ...]

    @property
    def scores(self) -> dict[str, Json]:
        """Agent -> score with its interval and verdict; the reference and baselines without one are left out."""
        return {entry["name"]: entry["score"] for entry in self.record["contenders"] if entry["score"]}

    @property
    def verdict(self) -> str | None:
        """Of the first agent that was compared: holds, fails or undecided; None when there was none."""
        return next((score["verdict"] for score in self.scores.values()), None)

    @property
    def passed(self) -> bool:
        """Whether every gate passed."""
        return all(gate.verdict == "passed" for gate in self.gates)

    def save(self, path: Path | str, force: bool = False) -> Path:
        """Write `x.json` with all numbers, or `x.md` for people.

        Raises:
            UsageError: another suffix, or the file exists (without `force`) or cannot be written.
        """
        from kdcli.artifact import write_bytes, write_json
        from kdcli.reports.markdown import markdown

        path = Path(path)
        check(BenchConfig(), ReportConfig(), path)
        if path.suffix == ".json":
            return write_json(path, self.record, force)
        return write_bytes(path, markdown(self.record, self.gates).encode(), force)

    def facts(self) -> Mapping[str, Any]:
        """The score of every agent with its interval and verdict, then the gates."""
        told = {
            name: f"{s['score']:.3f} [{s['low']:.3f}, {s['high']:.3f}] {s['verdict']}"
            for name, s in self.scores.items()
            if s["score"] is not None
        }
        return {**told, **{f"{gate.agent}: {gate.gate}": gate.verdict for gate in self.gates}}
