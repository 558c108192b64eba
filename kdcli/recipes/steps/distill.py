"""`distill`: a smaller student of one teacher, of several seen as one, or along a chain."""

from __future__ import annotations

from pydantic import ConfigDict

from kdcli.api.distill import check as check_options
from kdcli.api.distill import distill as run
from kdcli.api.distill import find_teachers
from kdcli.distillation.config import ChainConfig, DistillConfig
from kdcli.options import build, given
from kdcli.recipes.step_kind import Inputs, Job, Kind, Take, files_of
from kdcli.spec import Json


class DistillStep(DistillConfig, ChainConfig):
    """How a student learns, and from whom in which order."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def make(job: Job) -> Json:
    """As `kdcli distill`."""
    teachers = list(job.inputs["teacher"])
    dataset = job.one("dataset")
    done = run(teachers, job.output, dataset=dataset, progress=job.listener, **given(job.options)).summary()
    return {key: done[key] for key in ("params", "losses", "return")}


def check(options: DistillStep, inputs: Inputs) -> None:
    """As `kdcli distill`, before anything runs; teachers that are there already are read."""
    config, chain = build(given(options), DistillConfig, ChainConfig)
    n_teachers, dataset = len(inputs["teacher"]), bool(inputs.get("dataset"))
    check_options(config, chain, n_teachers=n_teachers, dataset=dataset)
    if files := files_of(inputs["teacher"]):
        teachers, _ = find_teachers(files, config, chain)
        check_options(config, chain, n_teachers=n_teachers, dataset=dataset, teachers=teachers)


KIND = Kind(
    gives="agent",
    takes={"teacher": Take(("agent", "policy"), many=True), "dataset": Take(("dataset",), required=False)},
    config=DistillStep,
    suffix=lambda _: ".safetensors",
    check=check,
    make=make,
)
