"""The room that teaches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_teachers import CHOOSE, REACH, choose_teacher, reach_teacher

from kdcli.agents import store
from kdcli.agents.agent import Agent
from kdcli.agents.heads import Heads
from kdcli.agents.labels import label
from kdcli.distillation import DATA
from kdcli.distillation.buffer import Buffer
from kdcli.distillation.config import DistillConfig
from kdcli.distillation.data_modes import share_of_teacher
from kdcli.distillation.learner import Learner, agreement_of
from kdcli.distillation.loop import distill
from kdcli.distillation.objective import Objective
from kdcli.distillation.online import distill_to, pool_of
from kdcli.distillation.replay_pool import ReplayPool, RolloutCollector, watch
from kdcli.distillation.student import default_losses, new_student, resolve
from kdcli.envs.vector import Vector
from kdcli.errors import RefusedError, UsageError
from kdcli.rollouts.evaluate import play

QUICK = DistillConfig(student="mlp:8", labels=1500, rounds=3, updates=900, episodes=8, envs=4)


def taught(teacher: Agent, config: DistillConfig) -> Agent:
    assert teacher.env is not None
    vector = Vector(teacher.env, 4)
    pool = watch(teacher, vector, 500, 10_000, 0)
    judge = Vector(teacher.env, 8)
    return distill(teacher, config, pool, lambda agent: float(play(agent, judge, range(8)).returns.mean())).student


@pytest.mark.parametrize("loss", ["", "action", "huber", "mean", "kl"])
def test_a_continuous_student_learns(loss: str) -> None:
    """Law: a student of a continuous teacher comes to return as much, by every loss that fits."""
    student = taught(reach_teacher(), QUICK.model_copy(update={"loss": (loss,) if loss else ()}))
    assert play(student, Vector(REACH, 8), range(8)).returns.mean() > -5.0


@pytest.mark.parametrize("loss", [(), ("nll",), ("logits",), ("kl@0.7", "nll@linear:0.3->0")], ids=str)
def test_a_discrete_student_learns(loss: tuple[str, ...]) -> None:
    """Law: a student of a discrete teacher comes to return as much, by every loss that fits, alone or together."""
    student = taught(choose_teacher(), QUICK.model_copy(update={"loss": loss}))
    assert play(student, Vector(CHOOSE, 8), range(8)).returns.mean() > 18.5


def test_a_q_teacher_teaches() -> None:
    """Law: Q-values teach by their greedy action, as logits, and as values."""
    plain = choose_teacher()
    teacher = replace(plain, policy=replace_signal(plain, "q"))
    assert default_losses(teacher) == ("nll",)
    for loss, signal in ((("nll",), "logits"), (("kl",), "logits"), (("q",), "q")):
        student = taught(teacher, QUICK.model_copy(update={"loss": loss}))
        assert student.policy.signal == signal
        assert play(student, Vector(CHOOSE, 8), range(8)).returns.mean() > 18.5


def replace_signal(agent: Agent, signal: str) -> torch.nn.Module:
    import copy

    policy = copy.deepcopy(agent.policy)
    policy.signal = signal  # type: ignore[assignment]
    return policy  # type: ignore[return-value]


def test_training_moves_the_student_and_nothing_else() -> None:
    """Law: learning changes the student's weights, never the teacher's nor a snapshot's; the loss falls."""
    teacher = reach_teacher()
    before = {k: v.clone() for k, v in teacher.policy.state_dict().items()}
    pool = watch(teacher, Vector(REACH, 4), 500, 5000, 0)
    config = DistillConfig(student="mlp:8", loss=("action",), lr="0.003", batch=64)
    student = new_student(teacher, config, config.loss, pool.preprocess)
    learner = Learner(student, Objective.of(config, config.loss), resolve(config, teacher))
    snapshot = learner.snapshot()
    frozen = {k: v.clone() for k, v in snapshot.policy.state_dict().items()}
    losses = [learner.train(pool.buffer, 200) for _ in range(2)]
    assert losses[1] < losses[0]
    assert all(torch.equal(v, before[k]) for k, v in teacher.policy.state_dict().items())
    assert all(torch.equal(v, frozen[k]) for k, v in snapshot.policy.state_dict().items())
    assert any(not torch.equal(v, frozen[k]) for k, v in student.policy.state_dict().items())


def test_the_best_round_is_kept() -> None:
    """Law: the student that is returned is that of the round with the best return, not the last or of least loss."""
    teacher = reach_teacher()
    pool = watch(teacher, Vector(REACH, 4), 500, 5000, 0)
    returns, seen = iter([1.0, 5.0, 2.0]), []

    def judge(agent: object) -> float:
        assert isinstance(agent, Agent)
        seen.append(agent.policy.network.head.bias.detach().clone())
        return next(returns)

    done = distill(teacher, QUICK, pool, judge)
    assert torch.equal(done.student.policy.network.head.bias, seen[1])
    assert [r.mean_return for r in done.rounds] == [1.0, 5.0, 2.0]


def test_labels_are_a_budget() -> None:
    """Law: the teacher labels no more states than it was allowed, and as many as whole turns of the envs make up."""
    asked = []

    class Counting(Agent):
        def heads(self, obs: np.ndarray, state: np.ndarray | None = None) -> Heads:
            asked.append(len(obs))
            return super().heads(obs, state)

    teacher = Counting(**vars(reach_teacher()))
    for augment, labels in (("", 1501), ("gaussian:0.1", 1511), ("mix:0.5,share=0.3", 1499)):
        asked.clear()
        config = QUICK.model_copy(update={"labels": labels, "augment": augment})
        pool = pool_of(teacher, REACH, config)
        done = distill(teacher, config, pool, lambda _: 0.0)
        assert labels - 4 < done.rounds[-1].labels <= labels
        assert sum(asked) == done.rounds[-1].labels


def test_states_that_are_there_already_are_no_part_of_the_budget() -> None:
    """Law: a student that begins with recorded states asks for as many labels of its own as one that begins without."""
    teacher = reach_teacher()
    given = RolloutCollector(teacher, Vector(REACH, 4), 1).collect(None, 1.0, 2000)
    pool = pool_of(teacher, REACH, QUICK, given)
    done = distill(teacher, QUICK, pool, lambda _: 0.0)
    assert done.rounds[0].labels == 0
    assert QUICK.labels - 4 < done.rounds[-1].labels <= QUICK.labels
    assert len(pool.buffer) == 2000 + done.rounds[-1].labels


def test_data_modes() -> None:
    """Law: teacher and student modes fix who acts; dagger follows the schedule."""
    at = [0.0, 0.5, 1.0]
    modes = {
        mode: [share_of_teacher(DistillConfig(data=mode, beta="linear:1->0"))(p, {}) for p in at]
        for mode in DATA.names()
    }
    assert modes.pop("dagger") == [1, 0.5, 0]
    assert modes == {"teacher": [1, 1, 1], "dart": [1, 1, 1], "student": [0, 0, 0], "offline": [0, 0, 0]}
    driven = share_of_teacher(DistillConfig(beta="agreement:1->0"))
    assert [driven(0.5, {"agreement": seen}) for seen in (0.0, 0.75, 1.0)] == [1.0, 0.25, 0.0]


def test_a_fixed_pool_does_not_grow() -> None:
    """Law: offline learning uses the recorded states and no others."""
    teacher = reach_teacher()
    data = RolloutCollector(teacher, Vector(REACH, 4), 0).collect(None, 1.0, 800)
    pool = ReplayPool(teacher, data, 10_000)
    distill(teacher, QUICK, pool, lambda _: 0.0)
    assert pool.fixed
    assert len(pool.buffer) == 800


def test_buffer_is_bounded_and_forgets_the_oldest() -> None:
    """Law: a full buffer holds the newest rows, and a batch holds rows that belong together."""
    teacher = reach_teacher()
    pool = watch(teacher, Vector(REACH, 4), 8, 100, 0)
    buffer = Buffer(pool.preprocess, teacher.policy.rule, 100)
    for start in range(0, 300, 50):
        obs = np.arange(start, start + 50, dtype=np.float64)[:, None].repeat(2, 1) / 300
        buffer.add(obs, label(teacher, obs))
    assert len(buffer) == 100
    rows = list(buffer.batches(20, 5, torch.Generator().manual_seed(0)))
    features = torch.cat([batch.features for batch in rows])
    assert len(features.unique(dim=0)) == 100
    oldest = pool.preprocess(np.full((1, 2), 200 / 300))
    assert features[:, 0].min() == pytest.approx(float(oldest[0, 0]))
    said = teacher_on(pool, teacher).policy.forward(rows[0].features)
    assert agreement_of(teacher.rule, said, rows[0].teacher) == pytest.approx(1.0, abs=1e-5)


def teacher_on(pool: ReplayPool, teacher: Agent) -> Agent:
    """The teacher's own weights moved behind the pool's normalizer, so that it reads the pool's features."""
    import copy

    norm = pool.preprocess.normalizer
    assert norm is not None
    policy = copy.deepcopy(teacher.policy)
    first = policy.network.linears()[0]
    scale, mean = torch.from_numpy(norm.scale).float(), torch.from_numpy(norm.mean).float()
    with torch.no_grad():
        first.bias += first.weight @ mean
        first.weight *= scale
    return replace(teacher, preprocess=pool.preprocess, policy=policy)


def test_divergence_is_reported() -> None:
    """Law: a loss that is no number stops with a reason instead of a broken student."""
    teacher = reach_teacher()
    pool = watch(teacher, Vector(REACH, 4), 500, 5000, 0)
    with pytest.raises(RefusedError, match="not a finite number"):
        distill(teacher, QUICK.model_copy(update={"lr": "1e30", "loss": ("mean",)}), pool, lambda _: 0.0)


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    """Law: the same distillation twice writes the same file; another seed writes another."""
    seeds = {"a": 0, "b": 0, "c": 1}
    for name, seed in seeds.items():
        distill_to(tmp_path / name, reach_teacher(), [], QUICK.model_copy(update={"seed": seed}))
    a, b, c = (tmp_path / name for name in seeds)
    assert a.read_bytes() == b.read_bytes()
    assert a.read_bytes() != c.read_bytes()
    loaded = store.load(a)
    assert loaded.n_params == 2 * 8 + 8 + 8 + 1
    assert loaded.env == REACH


def test_an_existing_student_is_kept(tmp_path: Path) -> None:
    """Law: an existing output is not overwritten without force, and nothing is left beside it."""
    (tmp_path / "x").write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        distill_to(tmp_path / "x", reach_teacher(), [], QUICK)
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_text() == "mine"


def test_offline_needs_data(tmp_path: Path) -> None:
    """Law: learning offline from nothing is refused."""
    with pytest.raises(UsageError, match="dataset"):
        distill_to(tmp_path / "x", reach_teacher(), [], QUICK.model_copy(update={"data": "offline"}))
