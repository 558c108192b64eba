"""`kdcli bench`: agents side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdcli.benchmarks.config import BenchConfig
from kdcli.checkpoints.config import LoadConfig
from kdcli.cli.console import Console
from kdcli.cli.load import NoVecNormalize
from kdcli.cli.options import AsJson, Force, command
from kdcli.errors import UsageError
from kdcli.progress import Listener, Note
from kdcli.reports.config import ReportConfig

if TYPE_CHECKING:
    from kdcli.agents.agent import Agent
    from kdcli.benchmarks.baseline import Lesson
    from kdcli.benchmarks.contender import Contender
    from kdcli.envs.vector import Vector
    from kdcli.reports.gates import Gate, Outcome
    from kdcli.spec import Json

Agents = Annotated[
    list[Path], typer.Argument(metavar="AGENT", help="Checkpoints, agent files, ONNX files; the reference first.")
]
Reference = Annotated[
    Path | None, typer.Option("--reference", "--teacher", metavar="<path>", help="Compare with this one instead.")
]
Written = Annotated[Path | None, typer.Option("--output", "-o", metavar="<path>", help="Write x.json or x.md, too.")]
_STATES = 512  # on which an agent and its export are compared


@command
def bench(
    agents: Agents,
    config: BenchConfig,
    source: LoadConfig,
    asked: ReportConfig,
    *,
    reference: Reference = None,
    no_vecnormalize: NoVecNormalize = False,
    output: Written = None,
    force: Force = False,
    as_json: AsJson = False,
    console: Console,
) -> int:
    """Compare agents with the first one: size, latency, returns on the same initial states, and a verdict.

    A gate that fails is exit code 1, one that these episodes do not decide is 3. Gates know: score, return, agreement,
    kl, params, macs, bytes, latency_us, p99_us, latency_torch_us, latency_ratio, throughput.
    """
    from kdcli.agents.threads import one_thread
    from kdcli.recipes.runtimes.lab import check
    from kdcli.reports.gates import exit_code

    check(config.runtimes)
    gates = asked.gates()
    _check_output(output, force, asked.per_episode and not as_json)
    chosen = source.without_vecnormalize() if no_vecnormalize else source
    contenders = _read(_in_order(agents, reference), chosen, console.listener)
    with one_thread():
        record, outcomes = _measure(contenders, config, gates, asked.per_episode, console.listener)
    if output is not None:
        _write(output, record, outcomes, force)
        console.listener(Note(f"written to {output}"))
    if as_json:
        console.answer_json(record["schema"], record)
    else:
        show(console, record, outcomes)
    return exit_code(outcomes)


def _check_output(output: Path | None, force: bool, needs_json: bool) -> None:
    from kdcli.artifact import refuse_existing

    suffix = output.suffix if output is not None else ""
    if output is not None and suffix not in (".json", ".md"):
        raise UsageError(f"cannot write {output}", "a benchmark is written as .json or as .md", "name it bench.json")
    if needs_json and suffix != ".json":
        raise UsageError("--per-episode has nowhere to go", "returns are kept in JSON only", "add --json or -o x.json")
    if output is not None:
        refuse_existing(output, force)


def _in_order(agents: Sequence[Path], reference: Path | None) -> list[Path]:
    return list(agents) if reference is None else [reference, *(path for path in agents if path != reference)]


def _read(paths: Sequence[Path], source: LoadConfig, listener: Listener) -> list[Contender]:
    from kdcli.benchmarks.lineup import enter
    from kdcli.checkpoints.read import find_file, read_any, sniff

    files = [find_file(path) for path in paths]
    # Statistics that are named belong to the checkpoints among the files: the other kinds have their own.
    complete = source.model_copy(update={"vecnormalize": "auto"})
    return enter(files, [read_any(file, source if sniff(file) == "sb3" else complete, listener) for file in files])


def _measure(
    contenders: list[Contender], config: BenchConfig, gates: list[Gate], per_episode: bool, listener: Listener
) -> tuple[Json, list[Outcome]]:
    """Everything for all contenders and the linear student; latencies twice where a gate fails on the first ones."""
    from kdcli.benchmarks.bench import arena, time_again
    from kdcli.benchmarks.bench import bench as measure
    from kdcli.benchmarks.lineup import LINEAR, choose_env
    from kdcli.benchmarks.record import to_json
    from kdcli.reports.gates import check_agents, judge, wants_retiming

    check_agents(gates, [*(contender.name for contender in contenders), *([LINEAR] if config.baselines else [])])
    vector = arena(contenders, choose_env(contenders, listener), config)
    contenders = [*contenders, *_linear(contenders, vector, config, listener)]
    check_agents(gates, [contender.name for contender in contenders])
    ready = _ready(contenders, vector, config, listener)
    done = measure(ready, vector, config, listener)
    vector.close()
    record = to_json(done, per_episode)
    if wants_retiming(judge(record, gates)):
        listener(Note("a gate failed on a latency: measuring once more"))
        record = to_json(time_again(done, listener), per_episode)
    outcomes = judge(record, gates)
    return {**record, "gates": [outcome.to_json() for outcome in outcomes]}, outcomes


def _ready(contenders: Sequence[Contender], vector: Vector, config: BenchConfig, listener: Listener) -> list[Contender]:
    """The contenders with their ONNX twins, checked on states of their own play, and their programs to be timed."""
    from kdcli.recipes.runtimes.lab import enter, equip

    entrants = [enter(contender, vector, _STATES, config.seed, listener) for contender in contenders]
    if not config.latency_budget:
        return [entrant.contender for entrant in entrants]
    return equip(entrants, config.runtimes, listener)


def _linear(
    contenders: Sequence[Contender], vector: Vector, config: BenchConfig, listener: Listener
) -> list[Contender]:
    """The simplest student there is, where the time allows: a small network that is no better was not needed."""
    from kdcli.benchmarks.baseline import affordable, measure_pace
    from kdcli.benchmarks.contender import Contender
    from kdcli.benchmarks.lineup import LINEAR, is_linear

    teacher, budget = contenders[0], config.linear_budget
    if not (config.baselines and budget and contenders[1:]) or is_linear(teacher):
        return []
    lesson = affordable(measure_pace(teacher.player, vector, config.seed), budget)
    if lesson is None:
        listener(Note("no linear student: too little time to train one, see --linear-budget"))
        return []
    return [Contender(LINEAR, _distilled(teacher, vector, lesson, config.seed, listener), baseline=True)]


def _distilled(teacher: Contender, vector: Vector, lesson: Lesson, seed: int, listener: Listener) -> Agent:
    from kdcli.distillation.config import DistillConfig
    from kdcli.distillation.loop import distill
    from kdcli.distillation.pool import watch
    from kdcli.envs.play import open_vector, play, seeds_from
    from kdcli.envs.seeds import first_seed

    config = DistillConfig(student="linear", seed=seed, **asdict(lesson))
    own = open_vector(vector.spec, teacher.player, config.envs)
    pool = watch(teacher.player, own, config.labels // config.rounds, config.capacity, seed)
    judged = seeds_from(first_seed("select", seed), config.episodes)
    done = distill(teacher.player, config, pool, lambda a: float(play(a, vector, judged).returns.mean()), listener)
    own.close()
    return done.student


def _write(output: Path, record: Json, outcomes: list[Outcome], force: bool) -> None:
    from kdcli.artifact import write_bytes, write_json
    from kdcli.reports.markdown import markdown

    if output.suffix == ".json":
        write_json(output, record, force)
    else:
        write_bytes(output, markdown(record, outcomes).encode(), force)


def show(console: Console, record: Json, outcomes: Sequence[Outcome] = ()) -> None:
    """Write a benchmark's record as tables with their notes."""
    from kdcli.reports.notes import notes
    from kdcli.reports.table import gates, lab, lab_line, machine_line, quality, speed, title

    console.answer(title(record))
    console.table(*quality(record).padded())
    console.answer("\n" + (machine_line(record) or "not timed"))
    console.table(*speed(record).padded())
    if (runtimes := lab(record)) is not None:
        console.answer(f"\n{lab_line(record)}")
        console.table(*runtimes.padded())
    if outcomes:
        console.answer("")
        console.table(*gates(outcomes).padded())
    console.answer("\n" + "\n".join(notes(record)))
