"""Chains of distillations, and who of several teachers teaches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toy_teachers import CHOOSE, REACH, choose_teacher, reach_teacher

from kdcli.agents.actor import Actor
from kdcli.agents.agent import Agent
from kdcli.agents.observation import Preprocessor
from kdcli.distillation.config import DistillConfig
from kdcli.distillation.generations import Gather, Learn, assistant_chain, distill_in_sequence
from kdcli.distillation.loop import Distilled, distill
from kdcli.distillation.replay_pool import ReplayPool, RolloutCollector
from kdcli.distillation.teacher_selection import select_teacher
from kdcli.envs.vector import Vector
from kdcli.errors import UsageError
from kdcli.rollouts.evaluate import play
from kdcli.spec import EnvSpec

CONFIG = DistillConfig(student="mlp:8", labels=1200, rounds=3, updates=600, episodes=8, envs=4)


def gathering(spec: EnvSpec, taught: list[str], seen: list[Preprocessor | None] | None = None) -> Gather:
    """Pools of the env, noting who teaches, and how the student is to see."""

    def gather(teacher: Actor, preprocess: Preprocessor | None) -> ReplayPool:
        taught.append(teacher.name)
        if seen is not None:
            seen.append(preprocess)
        collector = RolloutCollector(teacher, Vector(spec, 4), 0)
        return ReplayPool(teacher, collector.collect(None, 1.0, 300), 10_000, collector, preprocess)

    return gather


def learning(gather: Gather) -> Learn:
    return lambda teacher, config: distill(teacher, config, gather(teacher, None), returns)


def returns(agent: Actor) -> float:
    assert agent.env is not None
    return float(play(agent, Vector(agent.env, 8), range(8)).returns.mean())


def test_every_rung_teaches_the_next() -> None:
    """Law: on a ladder each student learns from the one before it, and the last still plays as the teacher does."""
    taught: list[str] = []
    done = assistant_chain(reach_teacher(), ["mlp:16", "mlp:8", "mlp:4"], CONFIG, learning(gathering(REACH, taught)))
    assert taught == ["reach", done[0].student.name, done[1].student.name]
    assert [d.student.policy.network.hidden for d in done] == [(16,), (8,), (4,)]
    assert returns(done[-1].student) > -5


def test_generations_begin_from_other_weights() -> None:
    """Law: the same architecture again is a new student of another seed, taught by the last one."""
    seeds, learn = [], learning(gathering(CHOOSE, []))

    def noting(teacher: Actor, config: DistillConfig) -> Distilled:
        seeds.append(config.seed)
        return learn(teacher, config)

    first, second = assistant_chain(choose_teacher(), ["mlp:8"] * 2, CONFIG, noting)
    assert len(set(seeds)) == 2
    assert first.student.n_params == second.student.n_params
    assert not torch.equal(first.student.policy.network.head.weight, second.student.policy.network.head.weight)
    assert returns(second.student) > 18


def test_a_student_climbs_from_teacher_to_teacher() -> None:
    """Law: one student goes on from teacher to teacher, in as many labels and updates as it would get from one."""
    seen: list[Agent] = []

    def judge(agent: Actor) -> float:
        assert isinstance(agent, Agent)
        seen.append(agent)
        return returns(agent)

    taught: list[str] = []
    worse = reach_teacher(16)
    with torch.no_grad():
        worse.policy.network.head.weight *= 0.2
    told: list[Preprocessor | None] = []
    gather = gathering(REACH, taught, told)
    done = distill_in_sequence([worse, reach_teacher()], CONFIG.model_copy(update={"rounds": 4}), gather, judge)
    assert told[0] is None
    assert told[1] is done.student.preprocess
    assert taught == ["reach", "reach"]
    assert len(done.rounds) == 4
    assert done.rounds[-1].updates == CONFIG.updates // 2
    assert seen[-1].preprocess is seen[0].preprocess
    assert returns(done.student) > -5
    early = [r.mean_return for r in done.rounds[:2]]
    assert max(early) < done.rounds[-1].mean_return


def test_chains_of_nothing() -> None:
    """Law: no rung, no teacher and teachers without a round are errors with a way out."""
    gather = gathering(REACH, [])
    for work in (
        lambda: assistant_chain(reach_teacher(), [], CONFIG, learning(gather)),
        lambda: distill_in_sequence([], CONFIG, gather, returns),
        lambda: distill_in_sequence([reach_teacher()] * 4, CONFIG, gather, returns),
        lambda: select_teacher([], lambda *_: np.zeros(3)),
    ):
        with pytest.raises(UsageError) as raised:
            work()
        assert raised.value.fix


def test_the_best_teacher_is_elected() -> None:
    """Law: the winner has the largest mean; one clearly behind plays no further heat; the last heat is a fresh one."""
    rng, heats = np.random.default_rng(0), []
    teachers = [reach_teacher(4) for _ in range(3)]
    means = {id(t): m for t, m in zip(teachers, (0.0, 1.0, 1.002), strict=True)}

    def measure(agent: Actor, heat: int) -> np.ndarray:
        heats.append((teachers.index(agent), heat))
        luck = np.random.default_rng(heat).standard_normal(20)  # the same episodes for all
        return means[id(agent)] + luck + 0.01 * rng.standard_normal(20)

    found = select_teacher(teachers, measure)
    assert found.index == 2
    assert len(found.returns[0]) == 20 < len(found.returns[2])
    assert heats[-1] == (2, 4)
    assert found.mean_return == pytest.approx(1.002 + np.random.default_rng(4).standard_normal(20).mean(), abs=0.02)
    alone = select_teacher(teachers[:1], measure)
    assert (alone.index, len(alone.returns[0])) == (0, 20)
