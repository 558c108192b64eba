"""What `compress` leaves on disk: every artifact, how it was made, and a summary for people; whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kdcli import artifact
from kdcli.agents import store
from kdcli.agents.agent import Agent
from kdcli.benchmarks.record import to_json
from kdcli.compression.compress import Compressed
from kdcli.compression.config import CompressConfig
from kdcli.compression.prover import Proof
from kdcli.compression.search import Candidate
from kdcli.compression.summary import summary
from kdcli.spec import Json

SCHEMA = "kdcli.compress/1"
# All that a run folder holds.
OWN = (
    "recipe.json",
    "bench.json",
    "summary.md",
    *(f"{who}.{kind}" for who in ("teacher", "student") for kind in ("safetensors", "onnx")),
)
Parents = Sequence[Mapping[str, str]]


def save(folder: Path, done: Compressed, config: CompressConfig, parents: Parents, force: bool = False) -> None:
    """Write the run folder.

    teacher.safetensors, teacher.onnx, student.safetensors, student.onnx: the agents and their exports
    recipe.json: options, every candidate tried, and how it was trained; bench.json: all numbers; summary.md

    Raises:
        UsageError: the folder exists (without `force`) or cannot be written.
    """
    record = {**to_json(done.bench, per_episode=True), "budget": config.budget}
    answer = describe(done, config, parents)
    with artifact.atomic_folder(folder, force, OWN) as inside:
        _save_agents(inside, done, answer, parents)
        artifact.write_json(inside / "bench.json", record)
        artifact.write_bytes(inside / "summary.md", summary(answer, record).encode())
        files = {file.name: artifact.sha256(file) for file in sorted(inside.iterdir())}
        artifact.write_sealed(inside / "recipe.json", {**answer, "files": files})


def describe(done: Compressed, config: CompressConfig, parents: Parents) -> Json:
    """The run as JSON values: what was asked, found and tried."""
    judged = done.bench.results[1].comparison if done.student is not None else None
    return {
        "schema": SCHEMA,
        "teacher": done.teacher.name,
        "verdict": done.verdict,
        "minimal": done.student is None,
        "student": None if done.student is None else done.student.facts["student"],
        "params": [result.size.params for result in done.bench.results[: 2 if done.student is not None else 1]],
        "times_fewer": round(done.ratio, 3),
        "score": None if judged is None else asdict(judged),
        "targets": [asdict(met) for met in done.targets],
        "config": config.model_dump(mode="json"),
        "pace": asdict(done.throughput),
        "tried": [_candidate(c) for c in done.tried],
        "proofs": [_proof(proof) for proof in done.proofs if proof.candidate is not None],
        "parents": [dict(p) for p in parents],
        "versions": artifact.versions("torch", "numpy", "onnx", "onnxruntime", "gymnasium", "mujoco"),
    }


def _candidate(found: Candidate) -> Json:
    return {
        "student": found.architecture.student,
        "params": found.architecture.n_params,
        "screening": asdict(found.screening),
        "episodes_needed": found.needed,
        "promising": found.promising,
        "seconds": round(found.seconds, 1),
        "distill": found.recipe.model_dump(mode="json"),
    }


def _proof(proof: Proof) -> Json:
    judged = proof.bench["student"].comparison
    assert proof.candidate is not None
    assert judged is not None
    return {"student": proof.candidate.architecture.student, "verdict": proof.verdict, "comparison": asdict(judged)}


def _save_agents(folder: Path, done: Compressed, answer: Json, parents: Parents) -> None:
    made: dict[str, Any] = {
        "command": "compress",
        "versions": answer["versions"],
        "parents": [dict(p) for p in parents],
    }
    agents = {"teacher": (done.teacher, done.teacher_file), "student": (done.student, done.student_file)}
    for name, (agent, file) in agents.items():
        if isinstance(agent, Agent):
            store.save(folder / f"{name}.safetensors", agent, {**made, "config": answer["config"]})
        if file is not None:
            file.save(folder / f"{name}.onnx")
