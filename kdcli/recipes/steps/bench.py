"""`bench`: agents side by side, and gates."""

from __future__ import annotations

from pydantic import ConfigDict

from kdcli.api import bench as api
from kdcli.benchmarks.config import BenchConfig
from kdcli.options import given
from kdcli.recipes.step_kind import Inputs, Job, Kind, Take, part
from kdcli.reports.config import ReportConfig
from kdcli.spec import Json


class BenchStep(BenchConfig, ReportConfig):
    """How agents are compared, and what must hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def make(job: Job) -> Json:
    """As `kdcli bench`."""
    done = api.bench(*job.inputs["agents"], output=job.output, progress=job.listener, **given(job.options))
    scores = {entry["name"]: entry["score"] and entry["score"]["score"] for entry in done.record["contenders"]}
    return {"scores": scores, "verdicts": [gate.verdict for gate in done.gates]}


def check(options: BenchStep, inputs: Inputs) -> None:
    """As `kdcli bench`, before it begins."""
    api.check(part(options, BenchConfig), part(options, ReportConfig))


KIND = Kind(
    gives="report",
    takes={"agents": Take(("agent", "policy"), many=True)},
    config=BenchStep,
    suffix=lambda _: ".json",
    check=check,
    make=make,
)
