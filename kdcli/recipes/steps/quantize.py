"""`quantize`: an agent on fewer bits."""

from __future__ import annotations

from typing import Any

from kdcli import artifact
from kdcli.agents import store
from kdcli.checkpoints.read import read, read_any
from kdcli.compression.quantization import run
from kdcli.quantization.config import QuantizeConfig
from kdcli.quantization.plan import Plan
from kdcli.recipes.step_kind import Job, Kind, Take
from kdcli.spec import Json

VERDICTS = {"holds": "passed", "fails": "failed", "undecided": "undecided"}


def make(job: Job) -> Json:
    """As `kdcli quantize`."""
    [file], guide = job.inputs["agent"], job.one("teacher")
    done = run(read(file), job.options, read_any(guide) if guide else None, job.listener)
    record = {
        "command": "quantize",
        "config": job.options.model_dump(mode="json"),
        "way": done.kept.name,
        "versions": artifact.versions("torch", "numpy", "onnxruntime"),
        "parents": [artifact.parent(path) for path in (file, *([guide] if guide else []))],
    }
    store.save(job.output, done.kept.agent, record)
    facts = {"way": done.kept.name, "bits": done.kept.bits, "score": done.kept.score[0]}
    return {**facts, "verdicts": [VERDICTS[done.verdict]]}


def check(options: Any) -> None:
    """Read the scheme and the calibration."""
    Plan.parse(options.scheme, options.activations, options.inputs, options.calibration)


KIND = Kind(
    gives="agent",
    takes={"agent": Take(("agent",)), "teacher": Take(("agent", "policy"), required=False)},
    config=QuantizeConfig,
    suffix=lambda _: ".safetensors",
    check=check,
    make=make,
)
