"""`bench`: agents side by side, and gates."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import ConfigDict

from kdcli import artifact
from kdcli.benchmarks.bench import arena, bench
from kdcli.benchmarks.config import BenchConfig
from kdcli.benchmarks.contender import Contender
from kdcli.benchmarks.lineup import choose_env, enter
from kdcli.benchmarks.record import to_json
from kdcli.checkpoints.read import read_any
from kdcli.envs.vector import Vector
from kdcli.errors import KdcliError
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.states import played_in
from kdcli.exporters.step import convert
from kdcli.progress import Listener, Note
from kdcli.recipes.chain.kind import Job, Kind, Take
from kdcli.reports.config import ReportConfig
from kdcli.reports.gates import judge
from kdcli.spec import Json

_STATES = 512  # on which an agent and its export are compared


class BenchStep(BenchConfig, ReportConfig):
    """How agents are compared, and what must hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def make(job: Job) -> Json:
    """As `kdcli bench`, without the linear student: recipes name whom they compare."""
    config = BenchConfig(**{name: getattr(job.options, name) for name in BenchConfig.model_fields})
    files = job.inputs["agents"]
    contenders = enter(files, [read_any(file) for file in files])
    vector = arena(contenders, choose_env(contenders, job.listener), config)
    ready = [_timed(contender, vector, config.seed, job.listener) for contender in contenders]
    record = to_json(bench(ready, vector, config, job.listener), job.options.per_episode)
    vector.close()
    outcomes = [outcome.to_json() for outcome in judge(record, job.options.gates())]
    artifact.write_json(job.output, {**record, "gates": outcomes})
    return {"scores": {c["name"]: c["score"] and c["score"]["score"] for c in record["contenders"]}, "gates": outcomes}


def _timed(contender: Contender, vector: Vector, seed: int, listener: Listener) -> Contender:
    """The contender with its ONNX twin, so that all are timed in one runtime."""
    if contender.agent is None or contender.exported is not None:
        return contender
    states = played_in(vector, contender.agent, _STATES, seed)
    try:
        return replace(contender, exported=convert(contender.agent, states, ExportConfig()).agent)
    except KdcliError as error:
        listener(Note(f"{contender.name} is not timed in onnxruntime: {error.what}: {error.why}"))
        return contender


def check(options: Any) -> None:
    """Read the gates."""
    options.gates()


KIND = Kind(
    gives="report",
    takes={"agents": Take(("agent", "policy"), many=True)},
    config=BenchStep,
    suffix=lambda _: ".json",
    check=check,
    make=make,
)
