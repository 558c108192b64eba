"""Compression step by step: fewer layers, fewer channels, fewer bits, each followed by distillation and a gate.

Every step is tried on the agent that passed the one before, recovers by distillation from the teacher, and is screened
against the teacher on paired seeds. One that does not pass is left out: of channels a smaller cut is tried, of layers
and bits the next kind. It ends where nothing more passes, the targets are met, or the time is over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from kdcli.agents.actor import Actor
from kdcli.agents.agent import Agent
from kdcli.agents.states import States
from kdcli.agents.weight_init import init_from_teacher
from kdcli.benchmarks.target import Target
from kdcli.compression.candidate_trainer import CandidateTrainer
from kdcli.compression.quantization import recovery
from kdcli.compression.search import Candidate
from kdcli.compression.size_grid import Architecture
from kdcli.compression.targets import measure
from kdcli.distillation.config import DistillConfig
from kdcli.errors import UsageError
from kdcli.networks.mlp import MLP
from kdcli.progress import Note
from kdcli.pruning.config import PruneConfig
from kdcli.pruning.loop import Tools, prune
from kdcli.pruning.lossless import proved
from kdcli.pruning.size_targets import Budget
from kdcli.pruning.states import real_states
from kdcli.pruning.structured import TooSmallError
from kdcli.pruning.surgery import with_network
from kdcli.quantization.plan import Plan
from kdcli.quantization.quantize import quantize

# The share of the parameters that a step of channels keeps, and those that are tried where it fails.
_CUTS = (0.25, 0.5, 0.75)
# Levels of the weights, in the order they are tried: in ONNX they cost bytes, not time.
_BITS = ("int8", "kmeans:16", "kmeans:8")
_EVIDENCE = 512  # states that files are measured on
# States that idle units are idle in, as many as `kdcli prune --lossless` takes; fewer where they would take more than
# this share of the time.
_STATES, _FEWEST, _WATCHED = 20_000, 2_000, 0.05
_MOST_STEPS = 24


@dataclass(frozen=True, eq=False)
class Step:
    """What is to be tried: its name, and the agent with it, not yet recovered; `plan` where weights are quantized."""

    name: str
    agent: Agent
    plan: Plan | None = None


class Progress:
    """The agents that passed, the last of which is taken further, and all steps that were tried."""

    def __init__(self, trainer: CandidateTrainer, targets: Sequence[Target]) -> None:
        teacher = trainer.teacher
        if not isinstance(teacher, Agent):
            raise UsageError("--progressive takes the teacher itself apart", "it is a black box", "leave it out")
        self._shop, self._targets = trainer, targets

        n = int(min(_STATES, max(_FEWEST, _WATCHED * trainer.clock.budget * trainer.throughput.steps)))

        def gather(seed: int) -> States:
            return real_states(teacher, n, trainer.config.seed + seed)

        whole = _told(proved(teacher, gather).agent, teacher)
        self.states = gather(0)
        self.tried: list[Candidate] = []
        self.passed = [trainer.screened(0, _rung("lossless", whole), whole, DistillConfig(), trainer.clock.spent)]
        self.tried += self.passed

    @property
    def last(self) -> Candidate:
        """What passed last."""
        return self.passed[-1]

    def is_over(self, later: int) -> bool:
        """Whether nothing more is asked for, or a step and so many later ones, as long as any was, have no time."""
        reserved = later * max(one.seconds for one in self.tried)
        over = len(self.tried) >= _MOST_STEPS or not self._shop.has_time(reserved)
        return over or (bool(self._targets) and self._fits())

    def _fits(self) -> bool:
        found = measure({"it": self.last.student}, self._targets, self._shop.states(_EVIDENCE))
        return all(one.holds for one in found["it"])

    def attempt(self, step: Step) -> None:
        """Recover, screen, and keep what passes."""
        trainer, begin = self._shop, self._shop.clock.spent
        recipe = trainer.training_config(len(self.tried)).model_copy(
            update={"data": "student", "lr": "cosine:0.001->0.00003"}
        )
        if step.plan is None:
            student = trainer.recovered(step.agent, recipe)
        else:
            recover = recovery(trainer.teacher, recipe, trainer.pool(step.agent.preprocess), trainer.judge(recipe))
            student = quantize(step.agent, step.plan, self.states, recover)
        student = _told(student, trainer.teacher)
        found = trainer.screened(len(self.tried), _rung(step.name, student), student, recipe, begin)
        self.tried.append(found)
        if found.score >= trainer.config.min_score and found.screening.verdict != "fails":
            self.passed.append(found)
        else:
            trainer.listener(Note(f"{step.name} is left out"))


def progressive(trainer: CandidateTrainer, targets: Sequence[Target]) -> tuple[list[Candidate], list[Candidate]]:
    """The agents of the steps that passed, and all that were tried, each the lossless one first.

    Raises:
        UsageError: the teacher is a black box.
    """
    progress = Progress(trainer, targets)
    for kind, later in ((_layers, 1), (_channels, 1), (_bits, 0)):
        for step in kind(progress):
            if progress.is_over(later):
                break
            progress.attempt(step)
    return progress.passed, progress.tried


def _layers(progress: Progress) -> Iterator[Step]:
    """One hidden layer less, again and again; the first that fails ends it. Networks of named layers keep theirs."""
    while isinstance(network := progress.last.student.policy.network, MLP) and len(network.hidden) > 1:
        before = progress.last
        thin = MLP(network.inputs, network.hidden[:-1], network.outputs, network.activation_name, network.bias)
        yield Step(f"layers {thin}", init_from_teacher(with_network(before.student, thin), before.student))
        if progress.last is before:
            return


def _channels(progress: Progress) -> Iterator[Step]:
    """A quarter of the parameters, again and again; where that fails, half of them, then three quarters."""
    for share in _CUTS:
        before = None
        while progress.last is not before:
            before = progress.last
            thin = _thinner(before.student, share * before.student.n_params, progress)
            if thin is not None:
                yield Step(f"channels {thin.policy.network}", thin)


def _bits(progress: Progress) -> Iterator[Step]:
    """Fewer and fewer levels of the weights, each tried on the floats that passed last."""
    floats = progress.last.student
    for scheme in _BITS:
        yield Step(scheme, floats, Plan.parse(scheme, 0, 0))


def _thinner(agent: Agent, most: float, progress: Progress) -> Agent | None:
    """The agent with units cut, not recovered; None where none can be spared."""
    to = f"params<={int(most)}"
    config = PruneConfig(to=to, rounds=1, importance="activation")
    tools = Tools(lambda found: found, lambda _: 1.0, Budget.parse(to))
    try:
        return prune(agent, progress.states, config, tools).agent
    except TooSmallError:
        return None


def _told(agent: Agent, teacher: Actor) -> Agent:
    """The agent, which knows what it has become and of whom."""
    facts = {"format": "kdcli", "algorithm": "progressive", "student": str(agent.policy.network)}
    return replace(agent, name=f"{teacher.name}-progressive", facts={**facts, "teacher": teacher.name})


def _rung(name: str, agent: Agent) -> Architecture:
    return Architecture(name, agent.n_params)
