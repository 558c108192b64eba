"""A distillation that was stopped goes on where its last whole round ended, and comes to the same bytes."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter

from kdcli import artifact
from kdcli.agents.agent import Agent
from kdcli.distillation.checkpointing import SavedState, below, module_state, restore_module, under
from kdcli.distillation.config import DistillConfig
from kdcli.distillation.learner import Learner
from kdcli.distillation.loop import Round
from kdcli.distillation.replay_pool import ReplayPool
from kdcli.errors import KdcliError
from kdcli.files import whatever_it_says

_STATE = "state.safetensors"


class ResumeFile:
    """A folder beside the output: the rows that every round added, and the state at the end of the last one.

    It belongs to one command: that of another config, or from other files, begins anew.
    """

    def __init__(self, output: Path, config: DistillConfig, parents: Sequence[Mapping[str, str]]) -> None:
        self._folder = output.with_name(f"{output.name}.unfinished")
        made = {
            "config": config.model_dump(mode="json"),
            "parents": [parent["sha256"] for parent in parents],
            "versions": artifact.versions("kdcli", "torch", "numpy", "gymnasium"),
        }
        self._key = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()

    def resume(self, learner: Learner, pool: ReplayPool) -> tuple[list[Round], Agent] | None:
        """Bring both to where they were: the rounds so far and the best student; None where there is nothing.

        Raises:
            RefusedError: what is there is whole, and yet no such state.
        """
        with whatever_it_says(self._folder, "remove the folder, and the distillation begins anew"):
            return self._resume(learner, pool)

    def _resume(self, learner: Learner, pool: ReplayPool) -> tuple[list[Round], Agent] | None:
        found = self._read()
        if found is None:
            return None
        rounds, kept = found
        try:
            added = [artifact.read_tensors(self._rows(k))[1] for k in range(1, len(rounds))]
        except KdcliError:
            return None
        for rows in added:
            pool.buffer.put_back(rows)
        pool.restore(below("pool", kept))
        learner.restore(below("learner", kept))
        best = learner.snapshot()
        restore_module(best.policy, below("best", kept))
        learner.objective.measured.update(self._measured)
        return rounds, best

    def keep(self, rounds: Sequence[Round], best: Agent, learner: Learner, pool: ReplayPool) -> None:
        """Write what the last of `rounds` added, then where everything is."""
        if len(rounds) == 1:
            self.drop()
        self._folder.mkdir(parents=True, exist_ok=True)
        if len(rounds) > 1:
            artifact.write_tensors(self._rows(len(rounds) - 1), {}, pool.buffer.take_fresh(), force=True)
        else:
            pool.buffer.take_fresh()
        kept: SavedState = {
            **under("pool", pool.state()),
            **under("learner", learner.state()),
            **under("best", module_state(best.policy)),
        }
        record = {
            "key": self._key,
            "rounds": [asdict(r) for r in rounds],
            "measured": dict(learner.objective.measured),
        }
        artifact.write_tensors(self._folder / _STATE, record, kept, force=True)

    def drop(self) -> None:
        """Remove the folder."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self._folder)

    def _read(self) -> tuple[list[Round], SavedState] | None:
        try:
            record, kept = artifact.read_tensors(self._folder / _STATE)
        except KdcliError:
            return None
        if record.get("key") != self._key:
            return None
        self._measured: dict[str, float] = {str(name): float(value) for name, value in record["measured"].items()}
        return TypeAdapter(list[Round]).validate_python(record["rounds"]), kept

    def _rows(self, index: int) -> Path:
        return self._folder / f"rows.{index}.safetensors"
