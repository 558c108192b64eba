"""The whole line: from a teacher to the smallest student that holds, proven through its exported file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from kdcli.agents.actor import Actor
from kdcli.agents.agent import Agent
from kdcli.agents.onnx.session import OnnxAgent
from kdcli.benchmarks.bench import Bench
from kdcli.benchmarks.target import Met, Target
from kdcli.benchmarks.verdict import Verdict
from kdcli.compression.budget import Throughput
from kdcli.compression.candidate_trainer import CandidateTrainer
from kdcli.compression.clock import Clock
from kdcli.compression.config import CompressConfig
from kdcli.compression.progressive import progressive
from kdcli.compression.prover import Proof, Prover
from kdcli.compression.search import Candidate, search, search_best
from kdcli.compression.size_grid import Architecture, first_size, size_grid
from kdcli.compression.target_filter import FEW, fit, measure_twice
from kdcli.compression.targets import read_targets
from kdcli.exporters.step import Exported, Parents
from kdcli.progress import Listener, Note, silent
from kdcli.spec import n_outputs

# Ctrl-C, and SIGTERM as the command line has it.
_STOPPED = (KeyboardInterrupt, SystemExit)
# So many steps of a progressive compression are proven, the last first.
_CHECKS = 2


@dataclass(frozen=True, eq=False)
class Compressed:
    """What compress found.

    `student` is None when none was made, the teacher being minimal already. `verdict` is that of the bench, on
    episodes no decision before was based on. `tried` lists all candidates, `proofs` those that were benched, `targets`
    what those come to that were set.
    """

    teacher: Actor
    teacher_file: Exported | None
    student: Agent | None
    student_file: Exported | None
    bench: Bench
    verdict: Verdict
    tried: tuple[Candidate, ...]
    throughput: Throughput
    proofs: tuple[Proof, ...] = ()
    targets: tuple[Met, ...] = ()

    @property
    def ratio(self) -> float:
        """How many times fewer parameters the student has."""
        sizes = [result.size.params for result in self.bench.results]
        return sizes[0] / sizes[1] if self.student is not None else 1.0


Proven = Callable[[Compressed], object]


def compress(
    teacher: Actor,
    config: CompressConfig,
    clock: Clock,
    parents: Parents = (),
    listener: Listener = silent,
    proven: Proven | None = None,
) -> Compressed:
    """Find, export and prove the smallest student that holds `config.min_score`; `parents` are the teacher's files.

    Each time a student is proven that is smaller than those before, `proven` is called with it, its calls not timed
    yet. Ctrl-C and SIGTERM end the search with the smallest one proven so far. With targets, it is the one with the
    best score among those that meet them.

    Raises:
        UsageError: the env is not known, does not fit, or the teacher is no better than random play there; a target
            cannot be measured, or no student meets it.
        KeyboardInterrupt: nothing was proven when it came.
    """
    targets = read_targets(config.target)
    trainer = CandidateTrainer(teacher, config, clock, parents, listener)
    search = _Search(trainer, Prover(trainer), proven)
    if isinstance(teacher, Agent) and teacher.policy.network.is_linear:
        listener(
            Note(f"{teacher.name} is linear: {teacher.n_params} parameters, already minimal; it is exported as it is")
        )
        found = measure_twice(teacher, targets, trainer.states(FEW), listener)
        search.prover.prove(None, config.episodes)
        return replace(search.finished(), targets=tuple(found))
    if config.progressive:
        return search.progress(targets)
    size, remembers = _n_params(teacher), bool(teacher.state_size)
    architectures = size_grid(
        trainer.input_shapes, n_outputs(teacher.action), size, quick=bool(targets), memory=remembers
    )
    return search.fit(architectures, targets) if targets else search.smallest(architectures)


def _n_params(agent: Actor) -> int:
    assert isinstance(agent, Agent | OnnxAgent)
    return agent.n_params


@dataclass(eq=False)
class _Search:
    """One way or another through the candidates; `tried` are those that were trained."""

    trainer: CandidateTrainer
    prover: Prover
    proven: Proven | None
    tried: Sequence[Candidate] = ()

    def smallest(self, architectures: Sequence[Architecture]) -> Compressed:
        """Prove the first promising candidate, then smaller ones; where one does not hold, larger ones."""
        trainer, first = self.trainer, first_size(architectures, _n_params(self.trainer.teacher))
        self.tried = tried = list[Candidate]()
        try:
            search(
                architectures,
                first,
                lambda index, before: trainer.attempt(index, architectures[index], before),
                self._holds,
                tried,
            )
        except _STOPPED:
            if self.prover.smallest is None:
                raise
            trainer.listener(Note("interrupted: the smallest student that was proven so far is kept"))
        if not self.prover.proofs:
            candidate = max(tried, key=lambda one: one.score)
            self.prover.prove(candidate, trainer.episodes_for(candidate), last=True)
        return self.finished()

    def _holds(self, candidate: Candidate) -> bool:
        """Prove a promising candidate, where there is time, and tell of it."""
        before = self.prover.smallest
        if not candidate.promising or (before is not None and not self.trainer.affords(candidate)):
            return False
        proof = self.prover.prove(candidate, self.trainer.episodes_for(candidate))
        if proof is self.prover.smallest and self.proven is not None:
            self.proven(self._compressed(proof))
        return proof.verdict == "holds"

    def fit(self, architectures: Sequence[Architecture], targets: Sequence[Target]) -> Compressed:
        """Prove the best candidate among the rungs that meet all targets; its own file is measured in the end."""
        fitting = fit(self.trainer, architectures, targets)
        self.tried = search_best(fitting, lambda index, before: self.trainer.attempt(index, fitting[index], before))
        candidate = max(self.tried, key=lambda c: c.score)
        self.prover.prove(candidate, self.trainer.episodes_for(candidate), last=True)
        return self._measured(targets)

    def progress(self, targets: Sequence[Target]) -> Compressed:
        """Prove the agent of the last step that passed and is promising; if it does not hold, the one before it.

        With targets, it is the last that passed.
        """
        passed, self.tried = progressive(self.trainer, targets)
        order = [one for one in reversed(passed) if one.promising and not targets] or passed[-1:]
        for candidate in order[:_CHECKS]:
            proof = self.prover.prove(candidate, self.trainer.episodes_for(candidate), last=candidate is order[-1])
            if proof.verdict == "holds" or not self.trainer.affords(candidate):
                break
        return self._measured(targets)

    def _measured(self, targets: Sequence[Target]) -> Compressed:
        done, trainer = self.finished(), self.trainer
        assert done.student is not None
        return replace(done, targets=tuple(measure_twice(done.student, targets, trainer.states(FEW), trainer.listener)))

    def finished(self) -> Compressed:
        """The answer, with everything that is told of it."""
        answer = self.prover.answer
        try:
            answer = self.prover.with_timings(answer, self.tried)
        except _STOPPED:
            if answer.verdict != "holds":
                raise
            self.trainer.listener(Note("interrupted: calls are not timed"))
        return self._compressed(answer)

    def _compressed(self, proof: Proof) -> Compressed:
        return Compressed(
            teacher=self.trainer.teacher,
            teacher_file=self.prover.teacher_file,
            student=proof.candidate.student if proof.candidate else None,
            student_file=proof.file,
            bench=proof.bench,
            verdict=proof.verdict,
            tried=tuple(self.tried),
            throughput=self.trainer.throughput,
            proofs=tuple(self.prover.proofs),
        )
