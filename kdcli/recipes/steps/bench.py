"""`bench`: agents side by side, and gates."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict

from kdcli import artifact
from kdcli.benchmarks.config import BenchConfig
from kdcli.benchmarks.entries import enter
from kdcli.checkpoints.read import read_any
from kdcli.compression.comparison import measure
from kdcli.recipes.step_kind import Inputs, Job, Kind, Take, part
from kdcli.reports.config import ReportConfig
from kdcli.runtimes import prepare as lab
from kdcli.spec import Json


class BenchStep(BenchConfig, ReportConfig):
    """How agents are compared, and what must hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def make(job: Job) -> Json:
    """As `kdcli bench`."""
    files, options = job.inputs["agents"], job.options
    entries = enter(files, [read_any(file) for file in files])
    config = part(options, BenchConfig)
    record, _ = measure(entries, config, options.gates(), options.per_episode, job.listener)
    artifact.write_json(job.output, record)
    scores = {found["name"]: found["score"] and found["score"]["score"] for found in record["contenders"]}
    return {"scores": scores, "verdicts": [gate["verdict"] for gate in record["gates"]]}


def check(options: Any, inputs: Inputs) -> None:
    """Read the gates, and look for the runtimes."""
    options.gates()
    lab.check(options.runtimes)


KIND = Kind(
    gives="report",
    takes={"agents": Take(("agent", "policy"), many=True)},
    config=BenchStep,
    suffix=lambda _: ".json",
    check=check,
    make=make,
)
