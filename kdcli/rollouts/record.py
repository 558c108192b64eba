"""The step of this room: agents in, a dataset's folder out."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kdcli import artifact
from kdcli.agents import store
from kdcli.agents.actor import Actor
from kdcli.agents.agent import Agent
from kdcli.agents.threads import one_thread
from kdcli.datasets.manifest import Manifest
from kdcli.datasets.shards import Columns
from kdcli.datasets.writer import Writer, writing
from kdcli.envs.vector import Vector
from kdcli.errors import option
from kdcli.progress import Event, Listener, Note, silent
from kdcli.rollouts.config import RolloutConfig
from kdcli.rollouts.recording import Cast, Share, layout, open_envs, record
from kdcli.spec import space_to_json

MAX_SHARD_BYTES = 2**28
_EVERY_S = 0.1
_OUTCOME = ("episode", "reward", "terminated", "truncated")


def rollout(
    cast: Cast, config: RolloutConfig, output: Path, force: bool = False, listen: Listener = silent
) -> Manifest:
    """Record a dataset in the folder `output`; its manifest. What was begun in the same way is continued.

    At most about three times a shard is held in memory, and a shard is no larger than 256 MB.

    Raises:
        UsageError: the cast does not fit the env or the policy; the output exists (without `force`), or cannot be
            written, or the disk is full; the env or the teacher gave NaN. Finished shards stay.
        RefusedError: the output's manifest is damaged.
    """
    with one_thread(), writing(output, plan(cast, config), force) as writer:
        _tell_begun(writer, listen)
        try:
            for index in writer.missing():
                writer.add(_shard(cast, config, writer.manifest, index, listen))
        except (KeyboardInterrupt, SystemExit):
            listen(Note(f"{_progress(writer.manifest)} are kept: the same command goes on from there"))
            raise
        _tell_cut(writer.manifest, listen)
        return writer.manifest


def _shard(cast: Cast, config: RolloutConfig, manifest: Manifest, index: int, listen: Listener) -> Columns:
    share = Share(index * manifest.shard_rows, manifest.rows_of(index))
    return record(cast, config, share, manifest.layout, Meter(manifest, listen))


def plan(cast: Cast, config: RolloutConfig) -> Manifest:
    """What the dataset will be: its columns, its shards, and how it is made.

    Raises:
        UsageError: the cast does not fit the env or the policy.
    """
    vector = open_envs(cast, 1)
    try:
        columns = layout(cast, config, vector)
    finally:
        vector.close()
    most = MAX_SHARD_BYTES // sum(column.n_bytes for column in columns.values())
    return Manifest(_made(cast, config, vector), config.steps, max(1, min(config.shard_rows, most)), columns)


def _made(cast: Cast, config: RolloutConfig, vector: Vector) -> dict[str, Any]:
    return {
        "command": "rollout",
        "env": cast.env.to_json(),
        "observation": space_to_json(vector.observation),
        "action": space_to_json(vector.action),
        "config": {**config.model_dump(mode="json"), "beta": config.teacher_share},
        "teacher": _who(cast.teacher, cast.parents.get("teacher", {})),
        "student": None if cast.student is None else _who(cast.student, cast.parents.get("student", {})),
        "versions": artifact.versions("torch", "numpy", "gymnasium", "mujoco"),
    }


def _who(agent: Actor, parent: Mapping[str, str]) -> dict[str, Any]:
    """Name, digest of its file, and of what acts: statistics may come from a second file."""
    if not isinstance(agent, Agent):
        return {"name": agent.name, **parent}
    content = artifact.pack(store.describe(agent), store.tensors_of(agent))
    return {"name": agent.name, **parent, "content_sha256": hashlib.sha256(content).hexdigest()}


class Meter:
    """Tells what one shard adds: steps, steps a second, the mean return of the episodes that ended so far."""

    def __init__(self, manifest: Manifest, listen: Listener) -> None:
        rows = manifest.rows_of(len(manifest.shards))
        self._before, self._rows, self._total = sum(s.rows for s in manifest.shards), rows, manifest.n_steps
        self._ended, self._return_sum = manifest.n_episodes, sum(s.return_sum for s in manifest.shards)
        self._returns = np.zeros(rows)  # so far, of each episode: a shard has no more of them than rows
        self._listen, self._heard = listen, 0
        self._began = self._told = time.monotonic()

    def __call__(self, rows: Columns, done: int) -> None:
        """Hear that the first `done` rows are there."""
        now = time.monotonic()
        if now - self._told >= _EVERY_S or done == self._rows:
            self._told = now
            self._add({name: rows[name][self._heard : done] for name in _OUTCOME})
            self._heard = done
            self._listen(Event("rollout", self._before + done, self._total, self._facts(now)))

    def _add(self, rows: Columns) -> None:
        np.add.at(self._returns, rows["episode"], rows["reward"])
        ended = rows["episode"][rows["terminated"] | rows["truncated"]]
        self._ended += len(ended)
        self._return_sum += float(self._returns[ended].sum())

    def _facts(self, now: float) -> dict[str, float | int | str]:
        rate = round(self._heard / max(now - self._began, 1e-9))
        return {"steps/s": rate, **({"return": self._return_sum / self._ended} if self._ended else {})}


def _progress(manifest: Manifest) -> str:
    return f"{len(manifest.shards)} of {manifest.n_shards} shards"


def _tell_begun(writer: Writer, listen: Listener) -> None:
    if writer.manifest.shards:
        listen(Note(f"continuing at shard {writer.missing()[0] + 1} of {writer.manifest.n_shards}"))


def _tell_cut(manifest: Manifest, listen: Listener) -> None:
    """Episodes begin anew in every shard, so that long ones are seen from their start and never to their end."""
    if manifest.n_cut > manifest.n_episodes:
        what = f"{manifest.n_cut} episodes were cut where a shard ended, {manifest.n_episodes} were played to their end"
        more = f"{option('steps')} and {option('shard_rows')}"
        listen(Note(f"{what}: for states late in an episode give more {more}, or fewer {option('envs')}"))
