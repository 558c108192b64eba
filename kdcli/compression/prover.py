"""Proof as soon as there is something to prove, so that there is always a smallest student that was shown to hold.

A proof is a bench of its own, on initial states that nothing before was based on, with the student playing through its
exported file; it ends as soon as it is decided. All proofs of a search together have the error of one verdict
(`kdcli.benchmarks.sequential.Shares`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from kdcli.agents.actor import Actor
from kdcli.agents.agent import Agent
from kdcli.agents.onnx.session import OnnxAgent
from kdcli.benchmarks.bench import Bench, bench, joined, time_again
from kdcli.benchmarks.conduct import success_of
from kdcli.benchmarks.config import BenchConfig
from kdcli.benchmarks.entry import BenchEntry
from kdcli.benchmarks.sequential import Shares
from kdcli.benchmarks.verdict import Verdict
from kdcli.compression.candidate_trainer import CandidateTrainer
from kdcli.compression.search import Candidate
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.states import played_in
from kdcli.exporters.step import Exported, convert
from kdcli.progress import Note

STATES = 1000


@dataclass(frozen=True, eq=False)
class Proof:
    """The bench of a candidate through its file, or of the teacher alone, and the verdict that follows."""

    candidate: Candidate | None
    file: Exported | None
    bench: Bench
    verdict: Verdict

    @property
    def lower_bound(self) -> float:
        """Where the interval of the score begins; minus infinity where there is none."""
        judged = None if self.candidate is None else self.bench["student"].comparison
        return float("-inf") if judged is None or judged.low is None else judged.low


class Prover:
    """Proves candidates one after the other.

    Attributes:
        proofs: all of them, in order.
    """

    def __init__(self, trainer: CandidateTrainer) -> None:
        self._trainer = trainer
        self.proofs: list[Proof] = []
        self._shares = Shares()

    @cached_property
    def teacher_file(self) -> Exported | None:
        """The teacher as a checked file; None for one that is a file already."""
        return self._exported(self._trainer.teacher)

    @property
    def smallest(self) -> Proof | None:
        """The proof of the smallest student that was shown to hold."""
        held = [proof for proof in self.proofs if proof.candidate is not None and proof.verdict == "holds"]
        return min(held, key=lambda proof: proof.candidate.student.n_params if proof.candidate else 0, default=None)

    @property
    def answer(self) -> Proof:
        """The proof of the smallest student that holds, or else of the one that came nearest to it."""
        return self.smallest or max(self.proofs, key=lambda proof: proof.lower_bound)

    def prove(self, candidate: Candidate | None, episodes: int, last: bool = False) -> Proof:
        """Bench a candidate, or the teacher alone, over at most so many episodes; the `last` one has all of the error.

        Raises:
            RefusedError: the exported file does not act as the student does.
        """
        begin, config = time.monotonic(), self._trainer.config
        entries, file = [_entry("teacher", self._trainer.teacher, self.teacher_file)], None
        if candidate is not None:
            file = self._exported(candidate.student)
            entries.append(_entry("student", candidate.student, file))
        share = self._shares.next(last or candidate is None)
        settings = BenchConfig(
            max_episodes=episodes,
            seed=config.seed + len(self.proofs),
            min_score=config.min_score,
            confidence=1 - share * (1 - config.confidence),
            baselines=config.baselines,
            latency_budget=0.0,
        )
        found = bench(entries, self._trainer.vector, settings, self._trainer.listener)
        verdict = "holds" if candidate is None else self._judged(found)
        self._shares.settle(share, verdict)
        proof = Proof(candidate, file, found, verdict)
        self.proofs.append(proof)
        if candidate is not None:
            self._trainer.listener(Note(_line(proof)))
            self._trainer.proof_took(time.monotonic() - begin)
        return proof

    def with_timings(self, proof: Proof, tried: Sequence[Candidate]) -> Proof:
        """The proof, with the times of calls, and beside it the linear student that was tried on the way."""
        config, found = self._trainer.config, proof.bench
        linear = next((one for one in tried if one.architecture.student == "linear"), None)
        if config.baselines and linear is not None and proof.candidate not in (None, linear):
            entry = replace(_entry("linear", linear.student, self._exported(linear.student)), baseline=True)
            found = joined(found, entry, self._trainer.vector, self._trainer.listener)
        timed = found.config.model_copy(update={"latency_budget": BenchConfig().latency_budget})
        found = time_again(replace(found, config=timed), self._trainer.listener)
        return replace(proof, bench=replace(found, repeated=False))

    def _judged(self, found: Bench) -> Verdict:
        """The student's verdict: the worse of its score's and, where one is asked for, its success rate's."""
        student, config = found["student"], self._trainer.config
        assert student.comparison is not None
        told = success_of(student.played.episodes, found.config.confidence)
        verdicts: list[Verdict] = [student.comparison.verdict]
        if config.min_success:
            fails, holds = told and told.high < config.min_success, told and told.low >= config.min_success
            verdicts.append("fails" if fails else "holds" if holds else "undecided")
        order: tuple[Verdict, ...] = ("fails", "undecided", "holds")
        return min(verdicts, key=order.index)

    def _exported(self, agent: Actor) -> Exported | None:
        """The agent as a checked file, or None for one that is a file already."""
        if not isinstance(agent, Agent):
            return None
        states = played_in(self._trainer.vector, agent, STATES, self._trainer.config.seed)
        return convert(agent, states, ExportConfig(states=STATES), self._trainer.parents)


def _entry(name: str, agent: Actor, file: Exported | None) -> BenchEntry:
    """The teacher plays in torch, as it was trained; whatever will be shipped plays through its file."""
    if file is None:
        assert isinstance(agent, OnnxAgent)
        return BenchEntry(name, None, agent, plays="onnxruntime")
    assert isinstance(agent, Agent)
    return BenchEntry(name, agent, file.agent, plays="torch" if name == "teacher" else "onnxruntime")


def _line(proof: Proof) -> str:
    assert proof.candidate is not None
    judged, size = proof.bench["student"].comparison, proof.candidate.architecture
    assert judged is not None
    numbers = "no score" if judged.score is None else f"score {judged.score:.3f} [{judged.low:.3f}, {judged.high:.3f}]"
    word = {"holds": "proven", "fails": "refuted", "undecided": "not proven"}[proof.verdict]
    return f"{size.student}, {size.n_params:,} parameters: {word}, {numbers} over {judged.n} fresh episodes"
