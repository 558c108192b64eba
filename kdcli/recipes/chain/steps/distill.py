"""`distill`: a smaller student of one teacher, or of several seen as one."""

from __future__ import annotations

from kdcli import artifact
from kdcli.agents.agent import Acts
from kdcli.agents.ensemble import Ensemble
from kdcli.checkpoints.read import read, read_any
from kdcli.datasets import Dataset
from kdcli.distillation.config import DistillConfig
from kdcli.distillation.step import distill_to
from kdcli.recipes.chain.kind import Job, Kind, Take
from kdcli.recipes.checks import check_distillation
from kdcli.spec import Json


def make(job: Job) -> Json:
    """As `kdcli distill`."""
    files, recorded, config = job.inputs["teacher"], job.one("dataset"), job.options
    one = len(files) == 1
    teacher: Acts = read_any(files[0]) if one else Ensemble([read(file) for file in files], config.combine)
    parents = [artifact.parent(file) for file in (*files, *([recorded / "manifest.json"] if recorded else []))]
    data = Dataset.open(recorded).labelled(config.capacity) if recorded else None
    done = distill_to(job.output, teacher, parents, config, data, listener=job.listener)
    best = max(r.mean_return for r in done.rounds)
    return {"params": done.student.n_params, "losses": list(done.losses), "return": best}


KIND = Kind(
    gives="agent",
    takes={"teacher": Take(("agent", "policy"), many=True), "dataset": Take(("dataset",), required=False)},
    config=DistillConfig,
    suffix=lambda _: ".safetensors",
    check=check_distillation,
    make=make,
)
