"""What else a distillation may be told: to look inside its teacher, to play for rewards, where states come from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_teachers import CHOOSE, REACH, choose_teacher, reach_teacher

from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.heads import Heads
from kdcli.agents.observation import Preprocess
from kdcli.agents.policy import Policy
from kdcli.choice import Choice
from kdcli.distillation import AUGMENTATIONS, BALANCES, REINFORCEMENTS, REPLAYS
from kdcli.distillation.augmentation import parse_augmentation
from kdcli.distillation.config import DistillConfig
from kdcli.distillation.curriculum import stages_of
from kdcli.distillation.learner import Learner
from kdcli.distillation.loop import Distilled, distill, fresh_student
from kdcli.distillation.loss_balancing import parse_balance
from kdcli.distillation.objective import Objective
from kdcli.distillation.online import distill_in_env, distill_to, pool_of, rewarded
from kdcli.distillation.reinforcement import in_units_of
from kdcli.distillation.replay import chances
from kdcli.distillation.student import new_student, resolve
from kdcli.distillation.term_weights import parse_weight
from kdcli.envs.make import make, to_space
from kdcli.envs.vector import Vector
from kdcli.errors import UsageError
from kdcli.networks.cnn import cnn
from kdcli.networks.stack import Branch, Stack
from kdcli.progress import Event
from kdcli.rollouts.evaluate import play
from kdcli.spec import EnvSpec

QUICK = DistillConfig(student="mlp:8", labels=1200, rounds=3, updates=600, episodes=8, envs=4)
SEE, REMEMBER = EnvSpec("kdcli/See-v0", {"channels_first": True, "size": 52}), EnvSpec("kdcli/Remember-v0")


def with_(**options: object) -> DistillConfig:
    return QUICK.model_copy(update=options)


def mean_return(agent: Agent) -> float:
    assert agent.env is not None
    return float(play(agent, Vector(agent.env, 8), range(8)).returns.mean())


def weights(done: Distilled) -> torch.Tensor:
    return torch.cat([p.flatten() for p in done.student.policy.network.parameters()])


def blind(teacher: Agent) -> Agent:
    """The same agent, whose weights are drawn at random."""
    student = new_student(teacher, with_(student="mlp:8"), ("kl",), teacher.preprocess)
    return replace(student, policy=student.policy.eval().requires_grad_(False))


@pytest.mark.parametrize("term", ["hint", "rkd_distance", "rkd_angle"])
def test_a_student_may_look_inside_its_teacher(term: str) -> None:
    """Law: a loss on features changes what is learned, brings the features nearer, and leaves no parameter behind."""
    plain, hinted = (
        distill_in_env(choose_teacher(), with_(loss=loss, batch=32)) for loss in (("kl",), ("kl", f"{term}@10"))
    )
    assert not torch.equal(weights(plain), weights(hinted))
    assert plain.student.n_params == hinted.student.n_params
    assert mean_return(hinted.student) > 18.0
    obs = np.random.default_rng(0).uniform(-1, 1, (128, 3)).astype(np.float32)
    teacher = choose_teacher().heads(obs)
    relation = Objective.parse(["rkd_distance"])
    near = [float(relation(done.student.heads(obs), teacher, 0.0)) for done in (plain, hinted)]
    assert near[1] < near[0] or term == "hint"


def image_teacher() -> Agent:
    """Any convolutional policy of kdcli/See-v0."""
    space = to_space(make(SEE).observation_space)
    preprocess = Preprocess(space, image=True)
    torch.manual_seed(0)
    network = cnn(Choice.parse("cnn:4x8x8,hidden=16"), [preprocess.shape], 4)
    policy = Policy(network, ActionRule(to_space(make(SEE).action_space)), "logits")  # type: ignore[arg-type]
    return Agent(preprocess, policy.eval().requires_grad_(False), "see", SEE)


def test_attention_is_transferred() -> None:
    """Law: attention maps of a smaller network come nearer to the teacher's; a network without images has none."""
    teacher = image_teacher()
    config = with_(student="cnn:2x4x4,hidden=8", labels=600, updates=120, batch=32)
    gaps = []
    for terms in (("kl",), ("kl", "attention@3")):
        done = distill_in_env(teacher, config.model_copy(update={"loss": terms}))
        obs = np.stack([make(SEE).reset(seed=k)[0] for k in range(16)])
        ours, theirs = Heads(attention=done.student.attention(obs)), Heads(attention=teacher.attention(obs))
        gaps.append(float(Objective.parse(["attention"])(ours, theirs, 0.0)))
    assert gaps[1] < gaps[0]
    adaptive = distill_in_env(teacher, config.model_copy(update={"loss": ("kl", "attention"), "tau": "entropy:0.5"}))
    assert np.isfinite(adaptive.rounds[-1].loss)
    with pytest.raises(UsageError, match="attention"):
        distill_in_env(choose_teacher(), with_(loss=("kl", "attention")))


class ResolvedRecipe:
    """Plays kdcli/Remember-v0 perfectly, as a black box that remembers the signal."""

    name, env, state_size = "told", REMEMBER, 1
    observation, action = to_space(make(REMEMBER).observation_space), to_space(make(REMEMBER).action_space)

    def step(
        self, obs: np.ndarray, state: np.ndarray, rng: np.random.Generator | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        state = np.where(obs[:, 1:] > 0, obs[:, :1], state).astype(np.float32)
        return (state[:, 0] > 0).astype(np.int64), state


def recurrent(cell: str) -> Agent:
    """An untrained policy of kdcli/Remember-v0 with one cell."""
    torch.manual_seed(0)
    network = Stack([Branch(0, (2,))], [(f"{cell}_cell", {"out": 8})], 2)
    policy = Policy(network, ActionRule(ResolvedRecipe.action), "logits")  # type: ignore[arg-type]
    return Agent(Preprocess(ResolvedRecipe.observation), policy, cell, REMEMBER)


@pytest.mark.parametrize("cell", ["gru", pytest.param("lstm", marks=pytest.mark.slow)])
def test_a_student_with_memory_learns_from_sequences(cell: str) -> None:
    """Law: what can only be known from what was seen before is learned, by a student that is taught along episodes."""
    config = with_(labels=2400, updates=900, batch=128, window=16, lr="0.01")
    teacher = ResolvedRecipe()
    pool = pool_of(teacher, REMEMBER, config)  # type: ignore[arg-type]
    done = distill(teacher, config, pool, mean_return, start=recurrent(cell))  # type: ignore[arg-type]
    assert mean_return(done.student) == 10.0
    with pytest.raises(UsageError, match="memory"):
        distill(teacher, with_(augment="gaussian:0.1"), pool, mean_return, start=recurrent(cell))  # type: ignore[arg-type]


def test_windows_are_pieces_of_episodes() -> None:
    """Law: a window holds one slot's steps in order, and never passes from the newest rows to the oldest."""
    config = with_(capacity=120, window=8)
    pool = pool_of(choose_teacher(), CHOOSE, config)
    buffer = pool.buffer
    n = 4 * 100
    obs = np.arange(n, dtype=np.float32).repeat(3).reshape(n, 3) / 1000
    buffer.add(obs, {"greedy": np.zeros(n, np.int64), "logits": obs, "begins": np.arange(n) % 40 < 4})
    batch = next(buffer.windows(50, 8, 1, torch.Generator().manual_seed(0), {"logits"}))
    assert batch.length == 8
    assert batch.begins is not None
    assert batch.teacher.logits is not None
    rows = (1000 * batch.teacher.logits[:, 0]).round().long().reshape(8, 50)
    assert (rows.diff(dim=0) == 4).all()
    assert rows.min() >= n - 120
    assert torch.equal(batch.begins.reshape(8, 50), rows % 40 < 4)


@pytest.mark.parametrize("name", REINFORCEMENTS.names())
@pytest.mark.parametrize("make_teacher", [choose_teacher, reach_teacher])
@pytest.mark.slow
def test_rewards_teach_what_the_teacher_cannot(name: str, make_teacher: object) -> None:
    """Law: beside a teacher that knows nothing, a student that plays for rewards becomes better than without."""
    teacher = blind(make_teacher())  # type: ignore[operator]
    config = with_(rounds=10, labels=8000, updates=1500, lr="0.003")
    alone = distill_in_env(teacher, config)
    helped = distill_in_env(teacher, config.model_copy(update={"reinforce": (f"{name}@linear:0->3",)}))
    chance, best = mean_return(alone.student), mean_return(make_teacher())  # type: ignore[operator]
    assert mean_return(helped.student) > chance + 0.2 * (best - chance)


def test_an_even_weight_of_nothing_changes_nothing() -> None:
    """Law: a reinforcement of weight 0 leaves the distillation as it is without, to the last bit."""
    plain, none = (distill_in_env(choose_teacher(), with_(reinforce=r)) for r in ((), ("ppo@0",)))
    assert torch.equal(weights(plain), weights(none))


def test_practice_has_a_budget_of_its_own() -> None:
    """Law: --reinforce takes as many steps of the env as it is given, whatever the labels are."""
    config = with_(reinforce=("ppo@0.1",), reinforce_steps=600)
    teacher = choose_teacher()
    pool = pool_of(teacher, CHOOSE, config)
    (reinforcement,) = rewarded(teacher, CHOOSE, config)
    student = fresh_student(teacher, config, ("kl",), pool)
    reinforcement.watch(student, {})
    assert reinforcement._experience is not None
    assert len(reinforcement._experience.features) == 600 // config.rounds - config.envs  # the last has no successor


def test_entropy_is_worth_something() -> None:
    """Law: a student that is paid for its entropy plays more at random."""
    noise = []
    for bonus in (0.0, 2.0):
        config = with_(reinforce=("ppo@1",), reinforce_entropy=bonus)
        noise.append(distill_in_env(choose_teacher(), config).rounds[-1].entropies["noise"])
    assert noise[1] > noise[0] + 0.1


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_the_critic_begins_with_what_the_teacher_expects(scale: float) -> None:
    """Law: values of any unit and height that follow the returns are what a new critic begins with."""
    expected = scale * torch.randn(500, generator=torch.Generator().manual_seed(0))
    known = 3.0 * expected / scale + 7.0
    torch.testing.assert_close(in_units_of(known, expected), known)
    assert float(in_units_of(-known, expected).std()) < 1e-3  # what speaks against the returns is not believed


def test_easier_envs_first() -> None:
    """Law: the next stage begins when the student is good in this one, and the last one is the real env."""
    stages = stages_of("size:12->36", SEE)
    assert [stage.kwargs["size"] for stage in stages] == [12, 36]
    assert [stage.id for stage in stages_of("env:kdcli/A-v0->kdcli/B-v0", SEE)] == ["kdcli/A-v0", "kdcli/B-v0"]
    assert stages_of("", SEE) == [SEE]
    with pytest.raises(UsageError, match="curriculum"):
        stages_of("size:12", SEE)
    config = with_(curriculum="env:kdcli/Choose-v0->kdcli/Choose-v0", rounds=4)
    pool = pool_of(choose_teacher(), CHOOSE, config)
    collector = pool._collector
    seen = []
    distill(choose_teacher(), config, pool, lambda _: float(seen.append(collector.stage) or 0.0))  # type: ignore[union-attr, func-returns-value]
    assert seen[0] == 0
    assert seen[-1] == 1


def test_dart_makes_the_teacher_as_wrong_as_the_student() -> None:
    """Law: the noise on the teacher's actions is the student's error; a student that is right gives none."""
    config = with_(data="dart", rounds=2)
    teacher = reach_teacher()
    pool = pool_of(teacher, REACH, config)
    student = new_student(teacher, config, ("action",), pool.preprocess)
    learner = Learner(student, Objective.parse(["action"]), resolve(config, teacher))
    noise = np.asarray(learner.errors(pool.buffer))
    assert noise.shape == (1,)
    batch = pool.buffer.newest(2048)
    ours = student.policy.forward(batch.features).action
    assert ours is not None
    assert batch.teacher.action is not None
    expected = (ours.detach().clamp(-1, 1) - batch.teacher.action).square().mean().sqrt()
    assert float(noise[0]) == pytest.approx(float(expected), rel=1e-4)
    before = len(pool.buffer)
    distill(teacher, config, pool, lambda _: 0.0)
    assert len(pool.buffer) > before
    actions = pool._collector._mixture.noise  # type: ignore[union-attr]
    assert np.all(np.asarray(actions) > 0)


@pytest.mark.parametrize("text", ["gaussian:0.1", "mix:0.3", "shift:2"])
def test_moved_states_are_near_and_inside(text: str) -> None:
    """Law: augmented states differ from those they were made of, lie in the space, and keep its dtype."""
    assert text.partition(":")[0] in AUGMENTATIONS.names()
    augment, rng = parse_augmentation(text), np.random.default_rng(0)
    assert augment is not None
    teacher = image_teacher() if augment.for_images else choose_teacher()
    assert teacher.env is not None
    env = make(teacher.env)
    obs = np.stack([env.reset(seed=k)[0] for k in range(20)])
    near = augment(teacher, obs, 30, rng)
    assert near.shape == (30, *obs.shape[1:])
    assert near.dtype == obs.dtype
    assert all(env.observation_space.contains(row) for row in near)
    assert (near[:, None] == obs[None]).reshape(30, 20, -1).all(2).any(1).mean() < 0.2
    other = choose_teacher() if augment.for_images else image_teacher()
    with pytest.raises(UsageError, match="does not fit"):
        augment(other, obs, 3, rng)


@pytest.mark.parametrize("text", ["gaussian", "gaussian:0", "mix:0.1,share=1", "mix:x", "blur:1"])
def test_no_augmentation_is_guessed(text: str) -> None:
    """Law: an augmentation without a number, or of an unknown name, is refused."""
    with pytest.raises(UsageError):
        parse_augmentation(text)


def test_states_with_more_loss_are_drawn_more_often() -> None:
    """Law: prioritized chances grow with the loss, sum to 1 and leave no state out; uniform ones are none."""
    assert set(REPLAYS.names()) == {"uniform", "prioritized"}
    teacher = choose_teacher()
    pool = pool_of(teacher, CHOOSE, QUICK)
    student = new_student(teacher, QUICK, ("kl",), pool.preprocess)
    objective = Objective.parse(["kl"])
    assert chances("uniform", pool.buffer, student.policy, objective) is None
    odds = chances("prioritized:0.6", pool.buffer, student.policy, objective)
    assert odds is not None
    assert float(odds.sum()) == pytest.approx(1.0, abs=1e-5)
    assert (odds > 0).all()
    batch = pool.buffer.newest(len(pool.buffer))
    losses = objective.each(student.policy.forward(batch.features), batch.teacher, 1.0)[0].detach()
    assert torch.equal(odds.argsort(), losses.argsort())
    drawn = torch.cat([b.features for b in pool.buffer.batches(64, 40, torch.Generator().manual_seed(0), None, odds)])
    often = (drawn[:, None] == batch.features[odds.argmax()]).all(2).sum()
    seldom = (drawn[:, None] == batch.features[odds.argmin()]).all(2).sum()
    assert often > seldom
    plain, prior = (distill_in_env(teacher, with_(replay=r)) for r in ("uniform", "prioritized"))
    assert not torch.equal(weights(plain), weights(prior))


@pytest.mark.parametrize("name", BALANCES.names())
def test_terms_share_the_gradient(name: str) -> None:
    """Law: a balance is finite and learns."""
    done = distill_in_env(choose_teacher(), with_(loss=("kl", "hint@10"), balance=name))
    assert np.isfinite(done.rounds[-1].loss)
    assert mean_return(done.student) > 15.0


def test_balance_by_gradients() -> None:
    """Law: a term's unit is of no account; its weight is how hard it pulls beside the first one."""
    features = torch.randn(32, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    heads = Heads(features=features)
    first, second = features[:, 0].square().mean(), (features[:, 1] - 1).square().mean()

    def pull(unit: float, weight: float) -> tuple[float, float]:
        total = parse_balance("gradient", 2)([first, unit * second], [1.0, weight], heads)
        (gradient,) = torch.autograd.grad(total, features, retain_graph=True)
        return float(gradient[:, 0].norm()), float(gradient[:, 1].norm())

    for unit in (0.01, 1.0, 1000.0):
        for weight in (0.25, 1.0):
            one, other = pull(unit, weight)
            assert other == pytest.approx(weight * one, rel=1e-3)


def test_weights_follow_what_is_measured() -> None:
    """Law: a weight on a control goes from its first number at 0 to its last at 1, and no further."""
    weight = parse_weight("agreement:1->0.2")
    assert [round(weight(0.3, {"agreement": at}), 3) for at in (-1.0, 0.0, 0.5, 1.0, 2.0)] == [1, 1, 0.6, 0.2, 0.2]
    assert parse_weight("linear:1->0")(0.25, {}) == 0.75
    with pytest.raises(UsageError, match="weight"):
        parse_weight("return:1")
    done = distill_in_env(choose_teacher(), with_(loss=("kl@return:1->0.5", "logits@agreement:0->1")))
    assert mean_return(done.student) > 18.0


def test_a_temperature_for_each_choice() -> None:
    """Law: temperatures of several choices act on their own choice alone, with its own tau^2."""
    draws = torch.randn(2, 32, 5, generator=torch.Generator().manual_seed(0))
    ours, theirs = (Heads(logits=x, groups=(3, 2)) for x in draws)
    parts = [Heads(logits=x[:, :3], groups=(3,)) for x in draws], [Heads(logits=x[:, 3:], groups=(2,)) for x in draws]
    apart = sum(Objective.parse(["kl"], tau)(*pair, 0.0) for tau, pair in zip(("4", "0.5"), parts, strict=True))
    torch.testing.assert_close(Objective.parse(["kl"], "4|0.5")(ours, theirs, 0.0), apart)
    with pytest.raises(UsageError, match="3 temperatures"):
        Objective.parse(["kl"], "1|2|3")(ours, theirs, 0.0)


def test_entropies_are_reported() -> None:
    """Law: rounds tell how much a student's choice is decided by what it sees, and how much by chance."""
    loose, firm = (
        distill_in_env(choose_teacher(), with_(loss=loss)).rounds[-1].entropies
        for loss in (("kl",), ("kl", "noise_entropy@0.3", "decision_entropy"))
    )
    assert firm["noise"] < loose["noise"]
    assert 0.0 < firm["decision"] <= np.log(3) + 1e-6
    assert distill_in_env(reach_teacher(), QUICK).rounds[-1].entropies == {}


def test_a_student_goes_on_from_where_it_was() -> None:
    """Law: a distillation that is given its student begins with it, and trains that one."""
    teacher = choose_teacher()
    pool = pool_of(teacher, CHOOSE, QUICK)
    student = new_student(teacher, QUICK, ("kl",), pool.preprocess)
    before = torch.cat([p.detach().flatten().clone() for p in student.policy.parameters()])
    distill(teacher, with_(updates=3), pool, lambda _: 0.0, start=student)
    after = torch.cat([p.detach().flatten() for p in student.policy.parameters()])
    assert 0.0 < float((after - before).abs().max()) < 0.1


def test_offline_states_are_looked_at_again() -> None:
    """Law: recorded states without what a loss reads inside the teacher are labelled anew; without a teacher's, not."""
    config = with_(data="offline", loss=("kl", "hint"))
    obs = np.random.default_rng(0).uniform(-1, 1, (500, 3)).astype(np.float32)
    teacher = choose_teacher()
    labels = {"greedy": teacher.act(obs), "logits": teacher.heads(obs).scores().numpy()}
    pool = pool_of(teacher, CHOOSE, config, (obs, labels))
    assert pool.buffer.newest(5).teacher.features is not None


class StoppedError(Exception):
    """The process ends."""


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reinforce": ("ppo@0.5",), "augment": "gaussian:0.1", "replay": "prioritized", "balance": "gradient"},
        {"loss": ("kl", "hint@0.1"), "tau": "divergence:1->4", "data": "dart"},
        {"loss": ("kl",), "tau": "adversarial:1->4", "balance": "uncertainty", "curriculum": "env:{0}->{0}"},
    ],
    ids=["plain", "rewards", "dart", "adversarial"],
)
@pytest.mark.parametrize("make_teacher", [choose_teacher, pytest.param(reach_teacher, marks=pytest.mark.slow)])
def test_a_stopped_distillation_goes_on_to_the_same_bytes(make_teacher: Any, options: dict, tmp_path: Path) -> None:
    """Law: the same command after a stop ends in the same file as without one, adaptive temperatures included."""
    teacher = make_teacher()
    fits = {k: v for k, v in options.items() if k != "tau" or teacher.signal == "logits"}
    fits = {k: v.format(teacher.env.id) if k == "curriculum" else v for k, v in fits.items()}
    config = with_(rounds=4, labels=1600, **fits)
    parents = [{"path": "teacher", "sha256": "0" * 64}]
    whole, stopped = tmp_path / "whole.safetensors", tmp_path / "stopped.safetensors"
    distill_to(whole, teacher, parents, config)

    def stop(event: object) -> None:
        if isinstance(event, Event) and event.done == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        distill_to(stopped, teacher, parents, config, listener=stop)
    assert not stopped.exists()
    seen: list[int] = []
    distill_to(
        stopped, teacher, parents, config, listener=lambda e: seen.append(e.done) if isinstance(e, Event) else None
    )
    assert seen == [3, 4]
    assert stopped.read_bytes() == whole.read_bytes()
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["stopped.safetensors", "whole.safetensors"]


def test_another_command_begins_anew(tmp_path: Path) -> None:
    """Law: what was left by other options, or is damaged, is not gone on with."""
    teacher, config, output = choose_teacher(), with_(rounds=3), tmp_path / "s.safetensors"

    def stop(event: object) -> None:
        if isinstance(event, Event) and event.done == 2:
            raise StoppedError

    for change in ({"seed": 1}, {}):
        with pytest.raises(StoppedError):
            distill_to(output, teacher, [], config, listener=stop)
        folder = tmp_path / "s.safetensors.unfinished"
        if not change:
            (folder / "rows.1.safetensors").write_bytes(b"broken")
        seen = list[Any]()
        distill_to(output, teacher, [], config.model_copy(update=change), force=True, listener=seen.append)
        assert [event.done for event in seen] == [1, 2, 3]
        output.unlink()
