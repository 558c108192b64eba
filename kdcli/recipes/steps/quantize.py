"""`quantize`: an agent on fewer bits."""

from __future__ import annotations

from kdcli.api.agents import find_whole
from kdcli.api.quantize import check as check_options
from kdcli.api.quantize import quantize as run
from kdcli.options import given
from kdcli.quantization.config import QuantizeConfig
from kdcli.recipes.step_kind import Inputs, Job, Kind, Take, files_of
from kdcli.spec import Json

VERDICTS = {"holds": "passed", "fails": "failed", "undecided": "undecided"}


def make(job: Job) -> Json:
    """As `kdcli quantize`."""
    [file] = job.inputs["agent"]
    done = run(file, job.output, teacher=job.one("teacher"), progress=job.listener, **given(job.options))
    facts = {"way": done.kept.name, "bits": done.kept.bits, "score": done.kept.score[0]}
    return {**facts, "verdicts": [VERDICTS[done.verdict]]}


def check(options: QuantizeConfig, inputs: Inputs) -> None:
    """As `kdcli quantize`, before anything runs; an agent that is there already is read."""
    teacher = bool(inputs.get("teacher"))
    check_options(options, teacher=teacher)
    for file in files_of(inputs["agent"]):
        check_options(options, teacher=teacher, agent=find_whole(file).agent)


KIND = Kind(
    gives="agent",
    takes={"agent": Take(("agent",)), "teacher": Take(("agent", "policy"), required=False)},
    config=QuantizeConfig,
    suffix=lambda _: ".safetensors",
    check=check,
    make=make,
)
