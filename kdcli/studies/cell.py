"""One distillation and its measurement, as JSON values, schema `kdcli.study.cell/1`.

teacher, variant, seed          which cell it is
asked       what it was made with: `config` (options of kdcli distill), `teacher` (digests, env, first_seed, episodes)
status      "done"; "not applicable": this teacher cannot feed it; "failed": training diverged
reason      why, in three lines, where it is not done
score, return, returns          of the student's episodes, one a seed: 0 is random play, 1 the teacher
agreement   with the teacher on states of its play; params: of the student's network
losses, rounds, labels, updates what was trained with, how it went, and what was spent of the budget
seconds, cpu_seconds            of the distillation; measured_in: seconds of the measurement
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

from kdcli import artifact
from kdcli.distillation.loop import Distilled
from kdcli.distillation.online import distill_to
from kdcli.errors import KdcliError, RefusedError, UsageError, out_of_memory
from kdcli.outputs import options_changed
from kdcli.spec import Json
from kdcli.studies.plan import Cell
from kdcli.studies.teacher_setup import TeacherSetup

SCHEMA = "kdcli.study.cell/1"


def asked(cell: Cell, setup: TeacherSetup) -> Json:
    """Everything that the cell's numbers depend on."""
    teacher = {key: setup.known[key] for key in ("files", "env", "first_seed", "episodes")}
    return {"config": cell.config.model_dump(mode="json"), "teacher": teacher}


def differences(cell: Cell, setup: TeacherSetup, record: Json) -> list[str]:
    """Where a recorded cell was asked for differently, empty where it is the same."""
    now, then = asked(cell, setup)["teacher"], record["asked"]
    changed = options_changed(cell.config, then["config"])
    return changed + [f"teacher's {key}" for key, value in now.items() if then["teacher"].get(key) != value]


def make(cell: Cell, setup: TeacherSetup, student: Path) -> Json:
    """Distill and measure one student; one that cannot be made is a finding, too."""
    record: Json = {
        "schema": SCHEMA,
        "teacher": cell.teacher.name,
        "variant": cell.variant,
        "seed": cell.config.seed,
        "asked": asked(cell, setup),
        "versions": artifact.versions("torch", "numpy", "gymnasium", "mujoco"),
    }
    begin, cpu = time.perf_counter(), time.process_time()
    try:
        teacher, data = setup.teacher(cell.config), setup.data(cell.config)
        done = distill_to(student, teacher, setup.parents, cell.config, data, force=True)
        record["student_sha256"] = artifact.sha256(student)
    except (UsageError, RefusedError) as error:
        # A full disk or too little memory says nothing about the variant.
        if isinstance(error.__context__, OSError) or out_of_memory(error):
            raise
        return record | _not_made(error)
    spent = {"seconds": time.perf_counter() - begin, "cpu_seconds": time.process_time() - cpu}
    return record | _measured(done, setup) | {key: round(value, 3) for key, value in spent.items()}


def _not_made(error: KdcliError) -> Json:
    status = "failed" if isinstance(error, RefusedError) else "not applicable"
    return {"status": status, "reason": error.lines()}


def _measured(done: Distilled, setup: TeacherSetup) -> Json:
    begin = time.perf_counter()
    returns = setup.returns(done.student)
    return {
        "status": "done",
        "score": setup.score(returns),
        "return": float(returns.mean()),
        "returns": returns.tolist(),
        "agreement": setup.agreement(done.student),
        "params": done.student.n_params,
        "losses": list(done.losses),
        "labels": done.rounds[-1].labels,
        "updates": done.rounds[-1].updates,
        "rounds": [asdict(round_) for round_ in done.rounds],
        "measured_in": round(time.perf_counter() - begin, 3),
    }
