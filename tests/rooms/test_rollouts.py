"""Rollouts: what is recorded happened, in the env and in the teacher's head, and happens again with the same seed."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from kdcli.agents.action import ActionRule
from kdcli.agents.actor import Actor
from kdcli.agents.agent import Agent
from kdcli.agents.labels import label
from kdcli.agents.observation import Preprocess
from kdcli.agents.policy import Policy, Spread
from kdcli.agents.threads import one_thread
from kdcli.datasets import Dataset
from kdcli.datasets.shards import Columns
from kdcli.envs.make import make
from kdcli.envs.toys import Reach
from kdcli.errors import UsageError
from kdcli.networks.mlp import MLP
from kdcli.options import build
from kdcli.progress import Event, Note
from kdcli.rollouts import record as step
from kdcli.rollouts.behavior_policy import RANDOM, STUDENT, TEACHER
from kdcli.rollouts.checks import check_rollout
from kdcli.rollouts.config import RolloutConfig
from kdcli.rollouts.record import rollout
from kdcli.rollouts.recording import Cast, Share, record
from kdcli.rollouts.seeds import first_seed
from kdcli.spec import Box, Discrete, EnvSpec, box

REACH, CHOOSE = EnvSpec("kdcli/Reach-v0"), EnvSpec("kdcli/Choose-v0")


class Broken(Reach):
    """The third step of an episode gives what is not a number."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        self._n = 0
        return super().reset(seed=seed)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        obs, reward, *rest = super().step(action)
        self._n += 1
        return obs * (np.nan if self._n == 3 else 1.0), reward, *rest


gymnasium.register("test/Broken-v0", f"{__name__}:Broken", max_episode_steps=50)


def linear(weights: list[list[float]]) -> MLP:
    """A linear network with these weights (outputs, inputs)."""
    network = MLP(len(weights[0]), (), len(weights))
    with torch.no_grad():
        network.head.weight.copy_(torch.tensor(weights))
        network.head.bias.zero_()
    return network


def reaching(gain: float = 1.5, name: str = "reacher") -> Agent:
    """Plays Reach well, with a spread and a value."""
    rule, spread = ActionRule(box((1,), -1.0, 1.0)), Spread("constant", torch.tensor([-1.0]))
    policy = Policy(linear([[-gain, -gain]]), rule, "mean", spread, linear([[0.5, 0.5]]))
    return Agent(Preprocess(box((2,), dtype="float64")), policy.eval(), name, REACH)


def choosing() -> Agent:
    """Plays Choose perfectly."""
    network = linear((5.0 * np.eye(3)).tolist())
    return Agent(Preprocess(box((3,), -1.0, 1.0)), Policy(network, ActionRule(Discrete(3)), "logits"), "c", CHOOSE)


class BlackBox:
    """An agent that only acts."""

    def __init__(self, agent: Agent) -> None:
        self.name, self.env, self.observation, self.action = "box", agent.env, agent.observation, agent.action
        self.act, self.state_size = agent.act, 0


TEACHERS = {"reach": (reaching, REACH), "choose": (choosing, CHOOSE)}
EVERYONE: dict[str, dict[str, Any]] = {
    "teacher": {},
    "noisy": {"noise": 0.3},
    "sampled": {"sampled": True},
    "mixed": {"policy": "mixed", "beta": 0.3},
    "random": {"policy": "random"},
}


def cast(teacher: Actor | None = None, student: Actor | None = None, env: EnvSpec = REACH) -> Cast:
    return Cast(env, teacher or reaching(), student)


def config(steps: int = 700, **options: Any) -> RolloutConfig:
    return RolloutConfig(**{"steps": steps, "shard_rows": 300, "envs": 4, **options})


def rows(folder: Path) -> Columns:
    """A whole dataset."""
    return Dataset.open(folder).gather(np.arange(len(Dataset.open(folder))))


def recorded(path: Path, who: Cast, **options: Any) -> Columns:
    """Record and read back."""
    rollout(who, config(**options), path)
    return rows(path)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def of_kind(kind: str, how: str) -> tuple[Cast, dict[str, Any]]:
    """A teacher of an env, and who acts."""
    make_teacher, env = TEACHERS[kind]
    student = reaching(0.2) if kind == "reach" else choosing()
    return cast(make_teacher(), student if how == "mixed" else None, env), EVERYONE[how]


@pytest.mark.parametrize("how", EVERYONE)
@pytest.mark.parametrize("kind", TEACHERS)
def test_what_is_recorded_happened(tmp_path: Path, kind: str, how: str) -> None:
    """Law: from an episode's seed and its actions the env gives the same observations, rewards and ends again."""
    who, options = of_kind(kind, how)
    found = recorded(tmp_path / "d", who, **options)
    env = make(who.env)
    for episode in np.unique(found["episode"]):
        part = {name: column[found["episode"] == episode] for name, column in found.items()}
        assert (part["t"] == np.arange(len(part["t"]))).all()
        assert (part["seed"] == part["seed"][0]).all()
        obs, _ = env.reset(seed=int(part["seed"][0]))
        for t, action in enumerate(part["action"]):
            assert (part["obs"][t] == obs).all()
            obs, reward, terminated, truncated, _ = env.step(action)
            assert (reward, terminated, truncated) == (part["reward"][t], part["terminated"][t], part["truncated"][t])


@pytest.mark.parametrize("how", EVERYONE)
@pytest.mark.parametrize("kind", TEACHERS)
def test_what_the_teacher_says(tmp_path: Path, kind: str, how: str) -> None:
    """Law: whoever acts, each row holds the teacher's signals on its observation; `greedy` is what it would do."""
    who, options = of_kind(kind, how)
    found = recorded(tmp_path / "d", who, **options)
    said = label(who.teacher, found["obs"])
    assert {name for name in found if name.startswith("teacher.")} == {f"teacher.{name}" for name in said}
    for name, column in said.items():
        assert found[f"teacher.{name}"].dtype == column.dtype
        assert np.allclose(found[f"teacher.{name}"], column, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", TEACHERS)
def test_the_teacher_acts(tmp_path: Path, kind: str) -> None:
    """Law: a teacher without noise does what it says, bit for bit."""
    found = recorded(tmp_path / "d", of_kind(kind, "teacher")[0])
    assert (found["behaviour"] == TEACHER).all()
    assert np.array_equal(found["action"], found["teacher.greedy"])


def test_the_student_acts(tmp_path: Path) -> None:
    """Law: a student's rollout is its own deterministic play, labelled by the teacher."""
    student = reaching(0.2)
    found = recorded(tmp_path / "d", cast(student=student), policy="student")
    assert (found["behaviour"] == STUDENT).all()
    assert np.allclose(found["action"], student.act(found["obs"]), atol=1e-6)
    assert not np.allclose(found["action"], found["teacher.greedy"], atol=0.1)


def test_a_mixture_acts(tmp_path: Path) -> None:
    """Law: the teacher acts in a share beta of the steps, the student in the others, and rows say who did."""
    student = reaching(0.2)
    found = recorded(tmp_path / "d", cast(student=student), steps=2000, policy="mixed", beta=0.3)
    by_teacher = found["behaviour"] == TEACHER
    assert 0.25 < by_teacher.mean() < 0.35
    assert set(found["behaviour"]) == {TEACHER, STUDENT}
    assert np.array_equal(found["action"][by_teacher], found["teacher.greedy"][by_teacher])
    assert np.allclose(found["action"][~by_teacher], student.act(found["obs"][~by_teacher]), atol=1e-6)


def test_chance_acts(tmp_path: Path) -> None:
    """Law: random play is uniform over the action space and does far worse than the teacher."""
    found = recorded(tmp_path / "d", cast(), policy="random")
    assert (found["behaviour"] == RANDOM).all()
    assert abs(found["action"].mean()) < 0.1
    assert 0.5 < found["action"].std() < 0.65  # 1/sqrt(3) for a uniform on [-1, 1]
    rollout(cast(), config(), tmp_path / "teacher")
    assert Dataset.open(tmp_path / "d").returns().max() < Dataset.open(tmp_path / "teacher").returns().mean()


@pytest.mark.parametrize("options", [{"noise": 0.3}, {"sampled": True}])
def test_noise_moves_the_action_only(tmp_path: Path, options: dict[str, Any]) -> None:
    """Law: noise and sampling change what is done, inside the bounds, and never what is labelled."""
    found = recorded(tmp_path / "d", cast(), **options)
    moved = found["action"] - found["teacher.greedy"]
    assert 0.1 < moved.std() < 0.5
    assert (np.abs(found["action"]) <= 1.0).all()
    assert np.allclose(found["teacher.greedy"], reaching().act(found["obs"]), atol=1e-6)


def test_discrete_noise_is_a_share(tmp_path: Path) -> None:
    """Law: for discrete actions noise is the probability of a uniformly random one."""
    found = recorded(tmp_path / "d", cast(choosing(), env=CHOOSE), steps=2000, noise=0.3)
    assert 0.15 < (found["action"] != found["teacher.greedy"]).mean() < 0.25  # two thirds of 0.3


def test_a_black_box_teaches_its_action(tmp_path: Path) -> None:
    """Law: an agent that only acts can be recorded, too: it teaches its greedy action alone."""
    found = recorded(tmp_path / "d", cast(BlackBox(reaching())))
    assert [name for name in found if name.startswith("teacher.")] == ["teacher.greedy"]
    assert np.array_equal(found["action"], found["teacher.greedy"])


@pytest.mark.parametrize("how", EVERYONE)
def test_same_seed_same_bytes(tmp_path: Path, how: str) -> None:
    """Law: a repeated rollout is the same folder, byte for byte; another seed is other rows."""
    who, options = of_kind("reach", how)
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        rollout(who, config(seed=seed, **options), tmp_path / name)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert not np.isin(rows(tmp_path / "a")["obs"], rows(tmp_path / "c")["obs"]).any()


def test_a_shard_depends_on_its_place_alone(tmp_path: Path) -> None:
    """Law: any shard can be made without those before it, and is the same."""
    done = rollout(cast(), config(noise=0.1), tmp_path / "d")
    with one_thread():
        alone = record(cast(), config(noise=0.1), Share(600, 100), done.layout, lambda *_: None)
    found = rows(tmp_path / "d")
    assert all(np.array_equal(alone[name], found[name][600:]) for name in found)


def test_chance_differs_between_shards(tmp_path: Path) -> None:
    """Law: no shard repeats the random choices of another."""
    found = recorded(tmp_path / "d", cast(), policy="random")
    assert not np.isin(found["action"][:300], found["action"][300:]).any()


def test_seeds_are_for_training(tmp_path: Path) -> None:
    """Law: each episode has a seed of its own, and none that agents are judged on."""
    found = recorded(tmp_path / "d", cast(), seed=2)
    first = first_seed("train", 2)
    assert (found["seed"] - first == found["episode"]).all()
    assert found["episode"].max() < 700
    starts = found["obs"][found["t"] == 0]
    assert len(np.unique(starts, axis=0)) == len(starts) == len(np.unique(found["seed"]))


@pytest.mark.parametrize(("envs", "episodes"), [(1, 14), (7, 21), (500, 700)])
def test_exactly_the_steps_asked_for(tmp_path: Path, envs: int, episodes: int) -> None:
    """Law: shards of 300, 300 and 100 rows hold just those, of as many episodes side by side as there are envs."""
    done = rollout(cast(), config(envs=envs), tmp_path / "d")
    assert [shard.rows for shard in done.shards] == [300, 300, 100]
    assert done.n_episodes + done.n_cut == len(np.unique(rows(tmp_path / "d")["episode"])) == episodes


def test_large_rows_make_smaller_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: a shard is bounded in bytes, too."""
    row = sum(column.n_bytes for column in step.plan(cast(), config()).layout.values())
    monkeypatch.setattr(step, "MAX_SHARD_BYTES", 100 * row)
    assert [shard.rows for shard in rollout(cast(), config(), tmp_path / "d").shards] == [100] * 7


def test_memory_is_that_of_one_shard(tmp_path: Path) -> None:
    """Law: eight times the steps take no more memory."""
    rollout(cast(), config(), tmp_path / "warm")

    def peak(shards: int) -> int:
        tracemalloc.start()
        rollout(cast(), config(steps=shards * 1000, shard_rows=1000), tmp_path / str(shards))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(8) < 1.5 * peak(1)


def test_torch_gets_its_threads_back(tmp_path: Path) -> None:
    """Law: the number of threads is the caller's again, also after an error."""
    before = torch.get_num_threads()
    rollout(cast(), config(), tmp_path / "d")
    assert torch.get_num_threads() == before
    with one_thread():
        assert torch.get_num_threads() == 1
        with pytest.raises(UsageError):
            rollout(cast(env=CHOOSE), config(), tmp_path / "x")
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_progress_is_told(tmp_path: Path) -> None:
    """Law: steps grow to the total, with their speed and the mean return of the episodes that ended so far."""
    heard: list[Event | Note] = []
    done = rollout(cast(), config(), tmp_path / "d", listen=heard.append)
    events = [event for event in heard if isinstance(event, Event)]
    assert [event.done for event in events] == sorted(event.done for event in events)
    assert (events[-1].stage, events[-1].done, events[-1].total) == ("rollout", 700, 700)
    assert events[-1].facts["steps/s"] > 0
    assert events[-1].facts["return"] == pytest.approx(done.mean_return)
    assert done.mean_return == pytest.approx(Dataset.open(tmp_path / "d").returns().mean())


def test_cut_episodes_are_told(tmp_path: Path) -> None:
    """Law: shards too short to see episodes end are told of, with the way out."""
    heard: list[Event | Note] = []
    done = rollout(cast(), config(steps=100, shard_rows=40), tmp_path / "d", listen=heard.append)
    assert (done.n_episodes, done.n_cut) == (0, 12)
    assert done.mean_return is None
    assert any(isinstance(note, Note) and "steps and shard_rows" in note.text for note in heard)


def _interrupted(path: Path, who: Cast, after: int, ending: type[BaseException]) -> list[Event | Note]:
    """Record until `after` shards are there and the process is told to stop; what was heard."""
    heard: list[Event | Note] = []

    def listen(event: Event | Note) -> None:
        heard.append(event)
        if isinstance(event, Event) and event.done == after * 300 + 300:
            raise ending

    with pytest.raises(ending):
        rollout(who, config(noise=0.1), path, listen=listen)
    return heard


@pytest.mark.parametrize("after", [0, 1])
def test_interrupted_and_continued(tmp_path: Path, after: int) -> None:
    """Law: after Ctrl-C finished shards stay; the same call goes on, says where, and gives the same bytes."""
    who = cast()
    rollout(who, config(noise=0.1), tmp_path / "whole")
    heard = _interrupted(tmp_path / "d", who, after, KeyboardInterrupt)
    assert isinstance(heard[-1], Note)
    assert heard[-1].text.startswith(f"{after} of 3 shards are kept")
    told: list[Event | Note] = []
    rollout(who, config(noise=0.1), tmp_path / "d", listen=told.append)
    assert content(tmp_path / "d") == content(tmp_path / "whole")
    notes = [event.text for event in told if isinstance(event, Note)]
    assert ("continuing at shard 2 of 3" in notes) == (after == 1)


@pytest.mark.parametrize("change", ["seed", "teacher", "env"])
def test_another_rollout_does_not_continue(tmp_path: Path, change: str) -> None:
    """Law: an unfinished dataset is continued by the same teacher in the same env with the same options only."""
    _interrupted(tmp_path / "d", cast(), 1, KeyboardInterrupt)
    teacher = reaching(1.4) if change == "teacher" else reaching()
    env = replace(REACH, max_steps=40) if change == "env" else REACH
    with pytest.raises(UsageError, match="begun otherwise") as error:
        rollout(cast(teacher, env=env), config(noise=0.1, seed=int(change == "seed")), tmp_path / "d")
    assert f"made.{'config.seed' if change == 'seed' else change}" in error.value.why


MISTAKES: dict[str, tuple[Callable[[], Cast], dict[str, Any], str]] = {
    "no student": (cast, {"policy": "student"}, "policy='student' needs a student"),
    "no student to mix": (cast, {"policy": "mixed"}, "policy='mixed' needs a student"),
    "idle student": (lambda: cast(student=reaching()), {}, "the student has no part"),
    "other env": (lambda: cast(env=CHOOSE), {}, "the agent was trained on"),
    "student of another env": (lambda: cast(student=choosing()), {"policy": "mixed"}, "the agent was trained on"),
    "no such env": (lambda: cast(env=EnvSpec("kdcli/Reech-v0")), {}, "cannot make"),
    "bad argument": (lambda: cast(env=EnvSpec("kdcli/Reach-v0", {"speed": 1})), {}, "does not take these arguments"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_leave_nothing(tmp_path: Path, name: str) -> None:
    """Law: what cannot be played is said before anything is written."""
    who, options, what = MISTAKES[name]
    with pytest.raises(UsageError, match=what):
        rollout(who(), config(**options), tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_an_env_that_breaks(tmp_path: Path) -> None:
    """Law: NaN from the env is refused with the episode's seed and step, and recorded nowhere."""
    with pytest.raises(UsageError) as error:
        rollout(cast(env=EnvSpec("test/Broken-v0")), config(), tmp_path / "d")
    assert error.value.what == "your env test/Broken-v0 does not keep gymnasium's contract in step"
    assert "nan, 3 steps after reset(seed=" in error.value.why
    assert sorted(content(tmp_path / "d")) == ["manifest.json"]


def test_the_manifest_says_how(tmp_path: Path) -> None:
    """Law: who acted and how, the env, the spaces, the files they came from: all is on record, and no path."""
    parents = {"teacher": {"name": "t.zip", "sha256": "ab"}, "student": {"name": "s.zip", "sha256": "cd"}}
    who = replace(cast(student=reaching(0.2)), parents=parents)
    rollout(who, config(policy="mixed", beta=0.3, noise=0.1, seed=5), tmp_path / "d")
    data = Dataset.open(tmp_path / "d")
    assert data.made["config"] == {
        "steps": 700,
        "policy": "mixed",
        "beta": 0.3,
        "noise": 0.1,
        "sampled": False,
        "envs": 4,
        "seed": 5,
        "shard_rows": 300,
    }
    assert data.made["teacher"].items() >= parents["teacher"].items()
    assert data.made["student"].items() >= parents["student"].items()
    assert data.env == REACH
    assert isinstance(data.observation, Box)
    assert str(tmp_path) not in (tmp_path / "d" / "manifest.json").read_text()


@pytest.mark.parametrize("share", [{}, {"policy": "random"}])
def test_the_manifest_says_the_true_share(tmp_path: Path, share: dict[str, Any]) -> None:
    """Law: the beta on record is the share in which the teacher acted, whatever the option's default."""
    rollout(cast(), config(**share), tmp_path / "d")
    assert Dataset.open(tmp_path / "d").made["config"]["beta"] == (0.0 if share else 1.0)


@pytest.mark.parametrize(
    "options",
    [
        {"beta": 0.5},
        {"beta": 0.5, "policy": "student"},
        {"sampled": True, "policy": "random"},
        {"sampled": True, "policy": "student"},
        {"beta": 1.5, "policy": "mixed"},
        {"steps": 0},
        {"speed": 1},
    ],
)
def test_options_without_effect_are_refused(options: dict[str, Any]) -> None:
    """Law: an option that would do nothing, or cannot be, is an error."""
    with pytest.raises(UsageError):
        check_rollout(*build(options, RolloutConfig))
