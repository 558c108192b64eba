"""`kdcli.compress`: the whole line, from a teacher to the smallest student that holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdcli.api.result import Result
from kdcli.compression.clock import Clock
from kdcli.compression.config import CompressConfig
from kdcli.options import build
from kdcli.progress import Listener, silent

if TYPE_CHECKING:
    from kdcli.agents.agent import Agent
    from kdcli.agents.onnx.session import OnnxAgent
    from kdcli.benchmarks.target import Met
    from kdcli.benchmarks.verdict import Comparison, Verdict
    from kdcli.compression.compress import Compressed
    from kdcli.exporters.step import Exported
    from kdcli.spec import Json


def check(config: CompressConfig) -> None:
    """Say all that can be said before work begins.

    Raises:
        UsageError: a target or a loss that cannot be read.
    """
    from kdcli.compression.targets import read_targets
    from kdcli.distillation.objective import parse_term

    read_targets(config.target)
    for loss in config.loss:
        parse_term(loss)


def compress(
    teacher: Any,
    env: Any = None,
    *,
    output: Path | str | None = None,
    force: bool = False,
    progress: Listener = silent,
    **options: Any,
) -> CompressResult:
    """Find the smallest student that holds the teacher's score, and prove it through its exported file.

    Whenever a smaller one is proven, `output` is written anew: whatever ends the process, it holds the smallest proven
    so far. Ctrl-C ends the search and returns that one.

    Args:
        teacher: A path, a kdcli agent, or a Stable-Baselines3 model.
        env: A gymnasium id, a callable that makes an env, or an env; None: the one the teacher was trained on.
        output: Folder for everything it makes; None: the result holds it, see `CompressResult.save`.
        force: Replace a folder that an earlier run made.
        progress: Called with `kdcli.progress.Event` and `Note`.
        **options: Fields of `kdcli.compression.config.CompressConfig` (`budget="5m"`, `min_score=0.95`, ...) and
            `kdcli.checkpoints.config.LoadConfig`.

    Raises:
        UsageError: the env is not known or does not fit, the teacher is no better than random play, a target cannot be
            met, or the output exists (without `force`).
        RefusedError: the checkpoint is damaged, unsafe or unsupported.
    """
    [config] = build({k: v for k, v in options.items() if k in CompressConfig.model_fields}, CompressConfig)
    clock = Clock(config.budget)  # before the heavy imports: they count

    from kdcli import artifact
    from kdcli.agents.threads import one_thread
    from kdcli.api.agents import find
    from kdcli.api.envs import with_env_id
    from kdcli.checkpoints.config import LoadConfig
    from kdcli.compression.compress import compress as run
    from kdcli.compression.run_folder import OWN

    source, config = build(with_env_id({**options, "env": env}), LoadConfig, CompressConfig)
    check(config)
    if output is not None:
        artifact.refuse_folder(Path(output), force, OWN)
    found = find(teacher, source, progress)
    written = [force]  # what this command wrote itself may be replaced

    def write(done: Compressed) -> CompressResult:
        result = CompressResult(done, config, found.parents)
        if output is not None:
            result.save(output, written[-1])
            written.append(True)
        return result

    with one_thread():
        done = run(found.agent, config, clock, found.parents, progress, write)
    return write(done)


@dataclass(frozen=True, eq=False, repr=False)
class CompressResult(Result):
    """The teacher, its student, and the proof.

    `student` is None when the teacher is minimal already; `exported` is then the teacher's file.
    """

    compressed: Compressed
    config: CompressConfig
    parents: list[Mapping[str, str]]

    @property
    def teacher(self) -> Agent | OnnxAgent:
        """The agent that was compressed."""
        return self.compressed.teacher  # type: ignore[return-value]  # `find` gives one of these

    @property
    def student(self) -> Agent | None:
        """The smallest agent that was found to hold, or else the best one."""
        return self.compressed.student

    @property
    def exported(self) -> Exported | None:
        """The ONNX file to ship, checked against the agent; `exported.save(path)` writes it."""
        done = self.compressed
        return done.teacher_file if done.student is None else done.student_file

    @property
    def verdict(self) -> Verdict:
        """holds, fails or undecided, from the interval of the score over paired episodes."""
        return self.compressed.verdict

    @property
    def score(self) -> Comparison | None:
        """The score with its interval, `score.low` to `score.high`; None when the teacher is minimal already."""
        return self.compressed.bench.results[1].comparison if self.student is not None else None

    @property
    def ratio(self) -> float:
        """How many times fewer parameters the student has."""
        return self.compressed.ratio

    @property
    def targets(self) -> tuple[Met, ...]:
        """What the student comes to for each target that was set."""
        return self.compressed.targets

    @cached_property
    def record(self) -> Json:
        """The run as JSON values, schema `kdcli.compress/1`; `bench` holds every number."""
        from kdcli.benchmarks.record import to_json
        from kdcli.compression.run_folder import describe

        bench = {**to_json(self.compressed.bench), "budget": self.config.budget}
        return {**describe(self.compressed, self.config, self.parents), "bench": bench}

    def save(self, folder: Path | str, force: bool = False) -> Path:
        """Write student, teacher, their exports, all numbers and a summary into a folder, whole or not at all.

        Raises:
            UsageError: the folder exists (without `force`) or cannot be written.
        """
        from kdcli.compression.run_folder import save

        save(Path(folder), self.compressed, self.config, self.parents, force)
        return Path(folder)

    def facts(self) -> Mapping[str, Any]:
        """Verdict, score, parameters and how many times fewer they are."""
        from kdcli.compression.summary import times

        params, score = self.record["params"], self.score
        told = {"verdict": self.verdict, "student": self.record["student"] or "the teacher, already minimal"}
        if score is not None and score.score is not None:
            told["score"] = f"{score.score:.3f} [{score.low:.3f}, {score.high:.3f}]"
        return {**told, "params": params[-1], "teacher_params": params[0], "fewer": times(self.ratio)}
