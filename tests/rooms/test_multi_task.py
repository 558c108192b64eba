"""Several tasks at once."""

from __future__ import annotations

import pytest
import torch
from toy_teachers import CHOOSE, REACH, choose_teacher, reach_teacher

from kdcli.agents.agent import Agent
from kdcli.distillation.config import DistillConfig
from kdcli.distillation.loop import Judge
from kdcli.distillation.multi_task import JointLearner, Task, distill_tasks
from kdcli.distillation.parameter_sharing import copy_together, n_shared, share_trunk
from kdcli.distillation.replay_pool import watch
from kdcli.distillation.schedules import parse_schedule
from kdcli.envs.vector import Vector
from kdcli.errors import UsageError
from kdcli.rollouts.evaluate import play

CONFIG = DistillConfig(student="mlp:8x8", labels=1500, rounds=3, updates=900, episodes=8, envs=4)


def scored(teacher: Agent, random: float, best: float) -> Judge:
    assert teacher.env is not None
    vector = Vector(teacher.env, 8)
    return lambda agent: (float(play(agent, vector, range(8)).returns.mean()) - random) / (best - random)


def task(teacher: Agent, judge: Judge | None = None) -> Task:
    assert teacher.env is not None
    pool = watch(teacher, Vector(teacher.env, 4), 500, 10_000, 0)
    return Task(teacher, pool, judge or (lambda _: 0.0))


def shared(student: Agent) -> list[torch.Tensor]:
    return list(student.policy.network.trunk[1].parameters())


def test_one_student_learns_two_tasks() -> None:
    """Law: students that share a trunk hold their tasks, of other observations and actions, and each acts alone."""
    tasks = [
        task(reach_teacher(), scored(reach_teacher(), -20, -3)),
        task(choose_teacher(), scored(choose_teacher(), 6.7, 20)),
    ]
    done = distill_tasks(tasks, CONFIG)
    assert play(done.students[0], Vector(REACH, 8), range(8)).returns.mean() > -5.0
    assert play(done.students[1], Vector(CHOOSE, 8), range(8)).returns.mean() > 18.5
    assert all(torch.equal(a, b) for a, b in zip(*map(shared, done.students), strict=True))
    assert [len(records) for records in done.rounds] == [2, 2, 2]
    assert done.n_params == (2 * 8 + 8) + (3 * 8 + 8) + (8 * 8 + 8) + (8 + 1) + (8 * 3 + 3)


def test_a_step_of_one_task_moves_the_trunk_of_all() -> None:
    """Law: weights between the input layer and the head are shared, input layers and heads are not."""
    tasks = [task(reach_teacher()), task(choose_teacher())]
    alone = [t.student(t.resolve(CONFIG)) for t in tasks]
    before = [p.clone() for p in alone[1].policy.parameters()]
    one, other = share_trunk(alone)
    assert all(torch.equal(p, q) for p, q in zip(alone[1].policy.parameters(), before, strict=True))
    own = [p.clone() for p in (*other.policy.network.trunk[0].parameters(), *other.policy.network.head.parameters())]
    kept = copy_together([one, other])
    tasks[0].learner(one, tasks[0].resolve(CONFIG)).train(tasks[0].pool.buffer, 20)
    assert all(p is q for p, q in zip(shared(one), shared(other), strict=True))
    assert not torch.equal(shared(other)[0], shared(kept[1])[0])
    assert shared(kept[0])[0] is shared(kept[1])[0]
    now = [*other.policy.network.trunk[0].parameters(), *other.policy.network.head.parameters()]
    assert all(torch.equal(p, q) for p, q in zip(now, own, strict=True))
    assert n_shared([one, other]) == n_shared([one]) + n_shared([other]) - (8 * 8 + 8)


def test_one_task_alone_is_a_distillation() -> None:
    """Law: joint training of a single task takes the very steps of training it alone."""
    plain, joint = (task(choose_teacher()) for _ in range(2))
    alone, together = plain.student(plain.resolve(CONFIG)), joint.student(joint.resolve(CONFIG))
    plain.learner(alone, plain.resolve(CONFIG)).train(plain.pool.buffer, 50, (0.0, 0.5))
    lr = parse_schedule(plain.resolve(CONFIG).lr)
    JointLearner([joint.learner(together, joint.resolve(CONFIG))], [lambda _: 1.0], lr).train(
        [joint.pool], 50, (0.0, 0.5)
    )
    assert all(torch.equal(p, q) for p, q in zip(alone.policy.parameters(), together.policy.parameters(), strict=True))


def test_the_round_of_the_best_worst_task_is_kept() -> None:
    """Law: the students are of the round whose worst task did best, all of the same round."""
    scores = [iter([0.9, 0.6, 0.1]), iter([0.2, 0.5, 1.0])]
    seen: list[list[torch.Tensor]] = [[], []]

    def judge(k: int) -> Judge:
        def say(agent: object) -> float:
            assert isinstance(agent, Agent)
            seen[k].append(agent.policy.network.head.bias.detach().clone())
            return next(scores[k])

        return say

    done = distill_tasks([task(reach_teacher(), judge(0)), task(choose_teacher(), judge(1))], CONFIG)
    assert all(torch.equal(s.policy.network.head.bias, seen[k][1]) for k, s in enumerate(done.students))
    assert [record.mean_return for record in done.best] == [0.6, 0.5]


def test_a_weight_of_nothing_teaches_nothing() -> None:
    """Law: the weight of a task is on a schedule; at 0 its own layers stay as they are."""
    tasks = [task(reach_teacher()), task(choose_teacher())]
    students = share_trunk([t.student(t.resolve(CONFIG)) for t in tasks])
    start = students[1].policy.network.head.weight.detach().clone()
    learners = [t.learner(s, t.resolve(CONFIG)) for t, s in zip(tasks, students, strict=True)]
    joint = JointLearner(learners, [parse_schedule("1"), parse_schedule("steps:0->1")], parse_schedule("0.01"))
    joint.train([t.pool for t in tasks], 20, (0.0, 0.4))
    assert torch.equal(students[1].policy.network.head.weight, start)
    joint.train([t.pool for t in tasks], 20, (0.6, 1.0))
    assert not torch.equal(students[1].policy.network.head.weight, start)


@pytest.mark.parametrize("student", ["linear", "mlp:8"])
def test_nothing_to_share(student: str) -> None:
    """Law: students without a layer between the first and the last are refused with a way out, and so are no tasks."""
    config = CONFIG.model_copy(update={"student": student})
    with pytest.raises(UsageError, match="no layers to share") as raised:
        distill_tasks([task(reach_teacher()), task(choose_teacher())], config)
    assert raised.value.fix
    with pytest.raises(UsageError, match="no task"):
        distill_tasks([], config)
