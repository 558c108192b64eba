"""The whole line: from a teacher to the smallest student that holds, proven through its exported file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kdcli.agents.actor import Actor
from kdcli.agents.agent import Agent
from kdcli.agents.onnx.session import OnnxAgent
from kdcli.benchmarks.bench import Bench, bench
from kdcli.benchmarks.conduct import success_of
from kdcli.benchmarks.config import BenchConfig
from kdcli.benchmarks.entry import BenchEntry
from kdcli.benchmarks.target import Met, Target
from kdcli.benchmarks.verdict import Verdict
from kdcli.compression.budget import Throughput
from kdcli.compression.candidate_trainer import CandidateTrainer
from kdcli.compression.clock import Clock
from kdcli.compression.config import CompressConfig
from kdcli.compression.progressive import progressive
from kdcli.compression.search import Candidate, search, search_best
from kdcli.compression.size_grid import Architecture, first_size, size_grid
from kdcli.compression.target_filter import FEW, fit, measure_twice
from kdcli.compression.targets import read_targets
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.states import played_in
from kdcli.exporters.step import Exported, Parents, convert
from kdcli.progress import Listener, Note, silent
from kdcli.spec import n_outputs

STATES = 1000
# Two verdicts at 95%, on different episodes, keep the chance of a false one at 5%: each side of an interval has 2.5%.
CHECKS = 2


@dataclass(frozen=True, eq=False)
class Compressed:
    """What compress found.

    `student` is None when none was made, the teacher being minimal already. `verdict` is that of the bench, on
    episodes no decision before was based on. `tried` lists all candidates, `targets` what those come to that were set.
    """

    teacher: Actor
    teacher_file: Exported | None
    student: Agent | None
    student_file: Exported | None
    bench: Bench
    verdict: Verdict
    tried: tuple[Candidate, ...]
    throughput: Throughput
    targets: tuple[Met, ...] = ()

    @property
    def ratio(self) -> float:
        """How many times fewer parameters the student has."""
        sizes = [result.size.params for result in self.bench.results]
        return sizes[0] / sizes[1] if self.student is not None else 1.0


def compress(
    teacher: Actor, config: CompressConfig, clock: Clock, parents: Parents = (), listener: Listener = silent
) -> Compressed:
    """Find, export and prove the smallest student that holds `config.min_score`; `parents` are the teacher's files.

    With targets, it is the one with the best score among those that meet them.

    Raises:
        UsageError: the env is not known, does not fit, or the teacher is no better than random play there; a target
            cannot be measured, or no student meets it.
    """
    targets = read_targets(config.target)
    trainer = CandidateTrainer(teacher, config, clock, parents, listener)
    if isinstance(teacher, Agent) and teacher.policy.network.is_linear:
        listener(
            Note(f"{teacher.name} is linear: {teacher.n_params} parameters, already minimal; it is exported as it is")
        )
        found = measure_twice(teacher, targets, trainer.states(FEW), listener)
        return replace(_finish(trainer, None, [], 0, config.episodes), targets=tuple(found))
    if config.progressive:
        return _progress(trainer, targets)
    size, remembers = _n_params(teacher), bool(teacher.state_size)
    architectures = size_grid(
        trainer.input_shapes, n_outputs(teacher.action), size, quick=bool(targets), memory=remembers
    )
    return _fit(trainer, architectures, targets) if targets else _prove(trainer, architectures)


def _n_params(agent: Actor) -> int:
    assert isinstance(agent, Agent | OnnxAgent)
    return agent.n_params


def best(tried: Sequence[Candidate], above: int) -> Candidate | None:
    """The smallest promising candidate beyond the rung `above`."""
    return min((c for c in tried if c.promising and c.index > above), key=lambda c: c.index, default=None)


def _prove(trainer: CandidateTrainer, architectures: Sequence[Architecture]) -> Compressed:
    """Bench the smallest promising candidate; if the bench does not agree, a larger one on other episodes."""
    first = first_size(architectures, _n_params(trainer.teacher))
    tried: list[Candidate] = []
    done, above = None, -1
    for check in range(CHECKS):
        if best(tried, above) is None:
            tried += search(
                architectures, first, lambda index, before: trainer.attempt(index, architectures[index], before), above
            )
        candidate = best(tried, above) or (None if done else max(tried, key=lambda c: c.score))
        if candidate is None or (done and trainer.clock.left < trainer.seconds_for(trainer.config.episodes)):
            break
        done, above = _finish(trainer, candidate, tried, check, trainer.episodes_for(candidate)), candidate.index
        if done.verdict == "holds":
            break
    assert done is not None
    return replace(done, tried=tuple(tried))


def _fit(trainer: CandidateTrainer, architectures: Sequence[Architecture], targets: Sequence[Target]) -> Compressed:
    """Bench the best candidate among the rungs that meet all targets; its own file is measured in the end."""
    fitting = fit(trainer, architectures, targets)
    tried = search_best(fitting, lambda index, before: trainer.attempt(index, fitting[index], before))
    candidate = max(tried, key=lambda c: c.score)
    done = _finish(trainer, candidate, tried, 0, trainer.episodes_for(candidate))
    found = measure_twice(candidate.student, targets, trainer.states(FEW), trainer.listener)
    return replace(done, tried=tuple(tried), targets=tuple(found))


def _progress(trainer: CandidateTrainer, targets: Sequence[Target]) -> Compressed:
    """Bench the agent of the last step that passed and is promising; if the bench does not agree, the one before it.

    With targets, it is the last that passed.
    """
    passed, tried = progressive(trainer, targets)
    order = [one for one in reversed(passed) if one.promising and not targets] or passed[-1:]
    for check, candidate in enumerate(order[:CHECKS]):
        done = _finish(trainer, candidate, tried, check, trainer.episodes_for(candidate))
        if done.verdict == "holds" or trainer.clock.left < trainer.seconds_for(trainer.config.episodes):
            break
    found = measure_twice(candidate.student, targets, trainer.states(FEW), trainer.listener)
    return replace(done, tried=tuple(tried), targets=tuple(found))


def _finish(
    trainer: CandidateTrainer, candidate: Candidate | None, tried: list[Candidate], check: int, episodes: int
) -> Compressed:
    """Export teacher and student and bench them, the student through its file."""
    config, teacher = trainer.config, trainer.teacher
    files = {"teacher": _exported(teacher, trainer)}
    entries = [_entry("teacher", teacher, files["teacher"])]
    if candidate is not None:
        files["student"] = _exported(candidate.student, trainer)
        entries.append(_entry("student", candidate.student, files["student"]))
        linear = next((c for c in tried if c.architecture.student == "linear" and c is not candidate), None)
        if linear is not None and config.baselines:
            entries.append(replace(_entry("linear", linear.student, _exported(linear.student, trainer)), baseline=True))
    settings = BenchConfig(
        episodes=episodes,
        seed=config.seed + check,
        min_score=config.min_score,
        confidence=config.confidence,
        baselines=config.baselines,
    )
    found = bench(entries, trainer.vector, settings, trainer.listener)
    judged = _judged(found, config) if candidate is not None else "holds"
    return Compressed(
        teacher=teacher,
        teacher_file=files["teacher"],
        student=candidate.student if candidate else None,
        student_file=files.get("student"),
        bench=found,
        verdict=judged,
        tried=tuple(tried),
        throughput=trainer.throughput,
    )


def _judged(found: Bench, config: CompressConfig) -> Verdict:
    """The student's verdict: the worse of its score's and, where one is asked for, its success rate's."""
    student = found["student"]
    assert student.comparison is not None
    told = success_of(student.played.episodes, config.confidence)
    verdicts: list[Verdict] = [student.comparison.verdict]
    if config.min_success:
        fails, holds = told and told.high < config.min_success, told and told.low >= config.min_success
        verdicts.append("fails" if fails else "holds" if holds else "undecided")
    order: tuple[Verdict, ...] = ("fails", "undecided", "holds")
    return min(verdicts, key=order.index)


def _exported(agent: Actor, trainer: CandidateTrainer) -> Exported | None:
    """The agent as a checked file, or None for one that is a file already."""
    if not isinstance(agent, Agent):
        return None
    states = played_in(trainer.vector, agent, STATES, trainer.config.seed)
    return convert(agent, states, ExportConfig(states=STATES), trainer.parents)


def _entry(name: str, agent: Actor, file: Exported | None) -> BenchEntry:
    """The teacher plays in torch, as it was trained; whatever will be shipped plays through its file."""
    if file is None:
        assert isinstance(agent, OnnxAgent)
        return BenchEntry(name, None, agent, plays="onnxruntime")
    assert isinstance(agent, Agent)
    return BenchEntry(name, agent, file.agent, plays="torch" if name == "teacher" else "onnxruntime")
