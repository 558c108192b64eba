"""`distill`: a smaller student of one teacher, of several seen as one, or along a chain."""

from __future__ import annotations

from pydantic import ConfigDict

from kdcli import artifact
from kdcli.agents.actor import Actor
from kdcli.agents.ensemble import Ensemble
from kdcli.checkpoints.read import read, read_any
from kdcli.datasets import Dataset
from kdcli.distillation.checks import check_distillation
from kdcli.distillation.config import ChainConfig, DistillConfig
from kdcli.distillation.online import distill_to
from kdcli.distillation.teacher_chains import chain_to
from kdcli.errors import UsageError
from kdcli.recipes.step_kind import Job, Kind, Take, part
from kdcli.spec import Json


class DistillStep(DistillConfig, ChainConfig):
    """How a student learns, and from whom in which order."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def make(job: Job) -> Json:
    """As `kdcli distill`."""
    files, recorded = job.inputs["teacher"], job.one("dataset")
    config, chain = part(job.options, DistillConfig), part(job.options, ChainConfig)
    read_one = read_any if len(files) == 1 else read  # only agents that can be taken apart combine
    agents = [read_one(file) for file in files]
    parents = [artifact.parent(file) for file in (*files, *([recorded / "manifest.json"] if recorded else []))]
    if not chain.plain:
        if recorded:
            raise UsageError("dataset is not for chains", "every link collects states of its own", "leave it out")
        done = chain_to(job.output, agents, parents, config, chain, listener=job.listener)
    else:
        whole: Actor = agents[0] if len(agents) == 1 else Ensemble([read(file) for file in files], config.combine)
        data = Dataset.open(recorded).labelled(config.capacity) if recorded else None
        done = distill_to(job.output, whole, parents, config, data, listener=job.listener)
    best = max(r.mean_return for r in done.rounds)
    return {"params": done.student.n_params, "losses": list(done.losses), "return": best}


KIND = Kind(
    gives="agent",
    takes={"teacher": Take(("agent", "policy"), many=True), "dataset": Take(("dataset",), required=False)},
    config=DistillStep,
    suffix=lambda _: ".safetensors",
    check=check_distillation,
    make=make,
)
