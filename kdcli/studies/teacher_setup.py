"""A teacher ready to teach, and what its students are measured against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kdcli import artifact
from kdcli.agents.actor import Actor
from kdcli.agents.agent import Agent
from kdcli.agents.agreement import agreement
from kdcli.agents.ensemble import Ensemble
from kdcli.agents.onnx.session import OnnxAgent
from kdcli.agents.states import States, actions
from kdcli.checkpoints.read import find_file, read, read_any
from kdcli.compression.baseline_returns import measure
from kdcli.datasets import Dataset
from kdcli.distillation.config import DistillConfig
from kdcli.envs.vector import Vector
from kdcli.errors import UsageError
from kdcli.progress import Listener
from kdcli.rollouts.evaluate import collect_turns, open_vector, play, seeds_from
from kdcli.rollouts.seeds import first_seed
from kdcli.spec import Json
from kdcli.studies.config import Study, StudyTeacher
from kdcli.studies.folder import Folder
from kdcli.toml_config import built, path_of

_ALL = 1e9  # seconds: however long the episodes take


@dataclass(frozen=True, eq=False)
class TeacherSetup:
    """A teacher's agents and files, its env, and the initial states that all its students are measured on.

    `known` is the teacher's record (see `_measured`); `said` are its actions (N, *shape) on `states`.
    """

    agents: Sequence[Agent | OnnxAgent]
    files: Sequence[Path]
    dataset: Path | None
    vector: Vector
    seeds: range
    known: Json
    states: States
    said: np.ndarray

    @property
    def parents(self) -> list[dict[str, str]]:
        """How an artifact names these files."""
        return [artifact.parent(file) for file in self.files]

    def teacher(self, config: DistillConfig) -> Actor:
        """The agent that teaches: of several, all as one."""
        return seen_as_one(self.agents, config.combine)

    def data(self, config: DistillConfig) -> tuple[np.ndarray, dict[str, np.ndarray]] | None:
        """Recorded states for an offline variant, as many as others have labelled."""
        if config.data != "offline" or self.dataset is None:
            return None
        data = Dataset.open(self.dataset)
        data.verify()
        return data.labelled(config.labels)

    def returns(self, agent: Actor) -> np.ndarray:
        """Returns of the agent (n,) on the initial states of the measurement."""
        return play(agent, self.vector, self.seeds).returns

    def score(self, returns: np.ndarray) -> float:
        """0 is random play, 1 the teacher, on the same initial states."""
        chance, teacher = (float(np.mean(self.known[key]["returns"])) for key in ("random", "teacher"))
        return (float(returns.mean()) - chance) / (teacher - chance)

    def agreement(self, agent: Actor) -> float:
        """How much the agent does what the teacher does, on states of the teacher's own play."""
        return agreement(actions(agent, self.states), self.said, agent.action)


def seen_as_one(agents: Sequence[Agent | OnnxAgent], combine: str) -> Actor:
    """One teacher, or several of one env that teach together."""
    if len(agents) == 1:
        return agents[0]
    return Ensemble([agent for agent in agents if isinstance(agent, Agent)], combine)


def set_up(teacher: StudyTeacher, study: Study, folder: Folder, listener: Listener) -> TeacherSetup:
    """Read a teacher's files, make its env, and measure it and random play where no other process did.

    Raises:
        UsageError: the env is not known, cannot be made, or the teacher is no better there than random play.
        RefusedError: a file cannot be read.
    """
    files = [find_file(path_of(path)) for path in (teacher.path, *teacher.also)]
    agents, vector = _placed(teacher, files, listener)
    whole = seen_as_one(agents, built(DistillConfig, study.base | teacher.options, teacher.name).combine)
    seeds = seeds_from(first_seed("bench", study.seed), study.episodes)
    with folder.claim(f"teacher.{teacher.name}", wait=True):
        known = _measured(teacher.name, whole, files, vector, seeds, folder)
    obs, begins = collect_turns(whole, vector, study.states, first_seed("screen", study.seed))
    states = States(obs, "rollout", len(vector), begins)
    dataset = path_of(teacher.dataset) if teacher.dataset else None
    return TeacherSetup(agents, files, dataset, vector, seeds, known, states, actions(whole, states))


def _placed(teacher: StudyTeacher, files: Sequence[Path], listener: Listener) -> tuple[list[Agent | OnnxAgent], Vector]:
    """The agents in the files, and the env that they are to play."""
    read_one = read_any if len(files) == 1 else read  # only agents that can be taken apart combine
    agents: list[Agent | OnnxAgent] = [read_one(file, teacher.load, listener) for file in files]
    env = agents[0].env
    if env is None:
        raise UsageError(f"the env of {teacher.name} is not known", "its files do not tell", 'load = { env = "..." }')
    vector = open_vector(replace(env, max_steps=teacher.max_steps or env.max_steps), agents[0])
    return [replace(agent, env=vector.spec) for agent in agents], vector


def _measured(name: str, agent: Actor, files: Sequence[Path], vector: Vector, seeds: range, folder: Folder) -> Json:
    """The teacher's record: its files' digests, env, parameters, returns of its play and of random play."""
    asked = {
        "files": [artifact.sha256(file) for file in files],
        "env": vector.spec.to_json(),
        "first_seed": seeds[0],
        "episodes": len(seeds),
    }
    known = folder.read("teachers", name)
    if known is not None and all(known[key] == value for key, value in asked.items()):
        return known
    found = measure(agent, vector, seeds, _ALL)
    record: Json = {
        "schema": "kdcli.study.teacher/1",
        "name": name,
        **asked,
        "params": agent.n_params if isinstance(agent, Agent | OnnxAgent) else None,
        "teacher": {"mean": float(found.teacher.mean()), "returns": found.teacher.tolist()},
        "random": {"mean": float(found.random.mean()), "returns": found.random.tolist()},
    }
    folder.write("teachers", name, record)
    return record
