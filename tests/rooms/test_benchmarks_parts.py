"""What a benchmark is put together from: sizes, similarity, recorded states, names, what a baseline may cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sample_policies import POLICIES, observations
from torch.distributions import Bernoulli, Categorical, Independent, Normal, kl_divergence
from toy_teachers import CHOOSE, REACH, reach_teacher

from kdcli.agents import store
from kdcli.agents.agreement import agreement
from kdcli.agents.states import States
from kdcli.agents.states import actions as actions_in
from kdcli.artifact import sha256
from kdcli.benchmarks.baseline_budget import ROUNDS, Throughput, affordable
from kdcli.benchmarks.entries import choose_env, enter, is_linear, names_of
from kdcli.benchmarks.entry import BenchEntry
from kdcli.benchmarks.machine import machine, versions
from kdcli.benchmarks.returns import Recorder, Seeds, play_one
from kdcli.benchmarks.similarity import compare_actions, kl_gaussian, kl_logits
from kdcli.benchmarks.size import measure
from kdcli.envs.vector import Vector
from kdcli.errors import UsageError
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.step import convert
from kdcli.progress import Event, Note
from kdcli.spec import Discrete, MultiBinary, MultiDiscrete, box

RNG = np.random.default_rng(0)


def exported(agent, *outputs):
    return convert(agent, None, ExportConfig(outputs=outputs or ("action",))).agent


# --- agreement


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_agreement_of_an_agent_with_itself_is_one(name: str) -> None:
    """Law: an agent agrees with itself wholly, whatever its action space; with another less, and never more."""
    made = POLICIES[name]()
    actions, others = (actions_in(made, States(observations(made, 200, seed))) for seed in (0, 9))
    assert agreement(actions, actions, made.action) == 1.0
    assert agreement(actions, others, made.action) <= 1.0
    assert agreement(actions, others, made.action) < 1.0 or (actions == others).all()


def test_agreement_of_choices_is_the_share_of_equal_ones() -> None:
    """Law: a discrete action counts when all its parts are equal."""
    assert agreement(np.array([0, 1, 2, 2]), np.array([0, 1, 2, 1]), Discrete(3)) == 0.75
    ours, theirs = np.array([[0, 1], [1, 1]]), np.array([[0, 1], [1, 0]])
    assert agreement(ours, theirs, MultiDiscrete((2, 2))) == 0.5


def test_agreement_of_continuous_actions_is_in_half_ranges() -> None:
    """Law: 1 - RMS, each dimension in half its range; without bounds in standard deviations of the reference."""
    ours, theirs = np.zeros((4, 2), np.float32), np.array([[1.0, 10.0]] * 4, np.float32)
    assert agreement(ours, theirs, box((2,), [-2.0, -20.0], [2.0, 20.0])) == pytest.approx(0.5)
    spread = np.array([[-3.0], [3.0]])
    assert agreement(spread + 1.5, spread, box((1,))) == pytest.approx(0.5)
    assert agreement(spread + 1.5, spread, box((1,), 0.0)) == pytest.approx(0.5)
    constant = np.full((3, 1), 2.0)
    assert agreement(constant, constant, box((1,))) == agreement(constant, constant, box((1,), 2.0, 2.0)) == 1.0
    assert agreement(constant + 0.5, constant, box((1,))) == pytest.approx(0.5)
    huge = box((1,), -3e38, 3e38)
    assert agreement(np.ones((2, 1), np.float32), np.zeros((2, 1), np.float32), huge) == pytest.approx(1.0)


# --- KL


def test_kl_of_logits_is_that_of_torch() -> None:
    """Law: KL(theirs || ours) in nats: 0 for equal policies, else as torch.distributions has it, groups summed."""
    ours, theirs = RNG.normal(size=(2, 50, 5)) * 3
    assert kl_logits(ours, ours, Discrete(5)) == pytest.approx(np.zeros(50), abs=1e-12)
    a, b = torch.from_numpy(ours), torch.from_numpy(theirs)
    whole = kl_divergence(Categorical(logits=b), Categorical(logits=a))
    assert kl_logits(ours, theirs, Discrete(5)) == pytest.approx(whole.numpy())
    parts = [
        kl_divergence(Categorical(logits=y), Categorical(logits=x))
        for x, y in zip(a.split([2, 3], 1), b.split([2, 3], 1), strict=True)
    ]
    assert kl_logits(ours, theirs, MultiDiscrete((2, 3))) == pytest.approx(sum(parts).numpy())
    bits = kl_divergence(Independent(Bernoulli(logits=b), 1), Independent(Bernoulli(logits=a), 1))
    assert kl_logits(ours, theirs, MultiBinary(5)) == pytest.approx(bits.numpy())


def test_kl_of_gaussians_is_that_of_torch() -> None:
    """Law: KL(theirs || ours) of diagonal Gaussians, in nats."""
    ours, theirs = ({"mean": RNG.normal(size=(50, 3)), "log_std": RNG.normal(size=(50, 3))} for _ in range(2))
    a, b = (Independent(Normal(*map(torch.from_numpy, (s["mean"], np.exp(s["log_std"])))), 1) for s in (ours, theirs))
    assert kl_gaussian(ours, theirs) == pytest.approx(kl_divergence(b, a).numpy())


@pytest.mark.parametrize("name", ["discrete", "multi_discrete", "multi_binary", "constant_spread", "linear_spread"])
def test_an_agent_and_its_file_are_alike(name: str) -> None:
    """Law: of an agent and its export, where it puts out what it is sampled by, agreement is 1 and KL 0."""
    made = POLICIES[name]()
    outputs = ("logits",) if made.policy.signal == "logits" else ("mean", "log_std")
    torch_one, file = BenchEntry("a", made), BenchEntry("b", None, exported(made, *outputs), plays="onnxruntime")
    found = compare_actions(torch_one, file, States(observations(made, 100)))
    assert (found.n_states, found.agreement) == (100, pytest.approx(1.0, abs=1e-5))
    assert found.kl == pytest.approx(0.0, abs=1e-5)


def test_kl_is_absent_where_a_distribution_is() -> None:
    """Law: no KL with a file that puts out actions alone, of Q-values, or between different squashes."""
    clip, tanh = POLICIES["constant_spread"](), POLICIES["linear_spread"]()
    greedy = BenchEntry("file", None, exported(clip), plays="onnxruntime")
    q = BenchEntry("q", POLICIES["q"]())
    states = States(observations(clip, 9))
    assert compare_actions(BenchEntry("a", clip), greedy, states).kl is None
    assert compare_actions(q, q, states).kl is None
    assert compare_actions(BenchEntry("a", clip), BenchEntry("b", tanh), states).kl is None


def test_similarity_of_agents_with_memory() -> None:
    """Law: who remembers is compared along episodes, each with its own memory; beside itself agreement is 1."""
    made = POLICIES["lstm"]()
    one, file = BenchEntry("a", made), BenchEntry("b", None, exported(made), plays="onnxruntime")
    states = States(observations(made, 100), "given", 4)
    found = compare_actions(one, file, states)
    assert (found.agreement, found.kl) == (pytest.approx(1.0, abs=1e-5), None)
    other = BenchEntry("c", POLICIES["stack_layers"]())
    assert compare_actions(one, other, states).agreement < 0.99


# --- size


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_agent_and_file_have_one_size(name: str) -> None:
    """Law: parameters, constants and multiply-adds are the same in agent and file; the bytes are the file's."""
    made = POLICIES[name]()
    file = exported(made)
    alone, both = measure(BenchEntry("a", made)), measure(BenchEntry("a", made, file))
    assert alone.params == both.params == made.n_params
    assert (alone.constants, alone.multiply_adds) == (both.constants, both.multiply_adds)
    assert (alone.onnx_bytes, both.onnx_bytes) == (None, file.size_bytes)


def test_critics_are_counted_apart() -> None:
    """Law: what does not act adds to the total alone, and the total survives an export."""
    made = replace(POLICIES["value"](), facts={"total_params": 999})
    plain = replace(made, policy=replace_value(made))
    assert measure(BenchEntry("a", made)).params == measure(BenchEntry("a", plain)).params
    assert measure(BenchEntry("a", made)).total_params == 999
    assert measure(BenchEntry("a", None, exported(made), plays="onnxruntime")).total_params == 999
    assert measure(BenchEntry("a", POLICIES["value"]())).total_params is None


def replace_value(made):
    import copy

    policy = copy.deepcopy(made.policy)
    policy.value = None
    return policy


# --- contenders


def test_a_contender_must_have_what_it_plays_with() -> None:
    """Law: a contender that could not play is not made."""
    with pytest.raises(ValueError, match="cannot play with onnxruntime"):
        BenchEntry("a", reach_teacher(), plays="onnxruntime")
    with pytest.raises(ValueError, match="cannot play with torch"):
        BenchEntry("a")


def test_who_can_be_sampled() -> None:
    """Law: logits and a spread are distributions, Q-values and a lone mean are not, in either runtime."""
    stochastic = {"discrete": True, "constant_spread": True, "q": False, "clip": False}
    for name, answer in stochastic.items():
        made = POLICIES[name]()
        assert BenchEntry("a", made).is_stochastic is answer
        assert BenchEntry("a", None, exported(made), plays="onnxruntime").is_stochastic is answer


def test_files_enter_with_their_digest(tmp_path: Path) -> None:
    """Law: a file is known by name, digest and length, never by where it was; ONNX plays through onnxruntime."""
    native, onnx = tmp_path / "a.safetensors", tmp_path / "b.onnx"
    store.save(native, reach_teacher(), {})
    made = convert(reach_teacher(), None, ExportConfig())
    made.save(onnx)
    first, second = enter([native, onnx], [reach_teacher(), made.agent])
    assert first.file is not None
    assert (first.name, first.file.name, first.file.sha256) == ("a", "a.safetensors", sha256(native))
    assert (first.plays, second.plays) == ("torch", "onnxruntime")
    assert second.file is not None
    assert second.file.size_bytes == onnx.stat().st_size
    assert str(tmp_path) not in repr((first.file, second.file))


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["t/a.zip", "s/b.onnx"], ["a", "b"]),
        (["t/a.zip", "t/a.onnx"], ["a.zip", "a.onnx"]),
        (["t/a.zip", "s/a.zip"], ["t/a", "s/a"]),
        (["t/x/a.zip", "s/x/a.zip"], ["t/a", "s/a"]),
        (["t/a.zip", "t/a.zip", "t/a.zip"], ["a", "a (2)", "a (3)"]),
        (["t/random.zip", "t/b.zip"], ["random.zip", "b.zip"]),
        (["t/linear.zip"], ["linear.zip"]),
    ],
)
def test_names_are_short_and_different(files: list[str], names: list[str]) -> None:
    """Law: the shortest way to tell files apart, and never the name of a baseline."""
    assert names_of([Path(file) for file in files]) == names


def test_the_env_is_that_of_the_first_who_knows() -> None:
    """Law: the reference's env, else the next that is known; who was trained elsewhere is named; none is an error."""
    heard: list[Event | Note] = []
    agents = [replace(reach_teacher(), env=None), reach_teacher(), replace(reach_teacher(), env=CHOOSE)]
    entries = [BenchEntry(name, agent) for name, agent in zip("abc", agents, strict=True)]
    assert choose_env(entries, heard.append) == REACH
    assert heard == [Note("c was trained on kdcli/Choose-v0; here it plays kdcli/Reach-v0")]
    with pytest.raises(UsageError) as caught:
        choose_env(entries[:1])
    assert "--env" in caught.value.fix


def test_linear_is_seen_in_either_runtime() -> None:
    """Law: linear is a network without hidden layers, exported or not."""
    for name, answer in (("net_linear", True), ("net_tanh", False)):
        made = POLICIES[name]()
        assert is_linear(BenchEntry("a", made)) is answer
        assert is_linear(BenchEntry("a", None, exported(made), plays="onnxruntime")) is answer


# --- states


def test_the_recorder_samples_all_of_the_play() -> None:
    """Law: the states kept are rows that were seen, in order, each once, from all of the play alike."""

    class Silent:
        name, env, observation, action, state_size = "a", None, box((1,)), Discrete(2), 0

        def act(self, obs: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
            return np.zeros(len(obs), np.int64)

    recorder = Recorder(Silent(), 500)  # type: ignore[arg-type]
    for step in range(1250):
        recorder.act(np.arange(16 * step, 16 * step + 16, dtype=np.float32)[:, None])
    kept = recorder.states()[:, 0]
    assert len(kept) == 500
    assert (np.diff(kept) > 0).all()
    assert np.histogram(kept, 10, (0, 20_000))[0].min() > 25
    assert len(np.unique(kept % 16)) == 16


def test_the_recorder_acts_as_its_agent() -> None:
    """Law: being recorded changes nothing about the play, sampled or not."""
    vector = Vector(REACH, 4)
    for sampled in (False, True):
        seeds = Seeds(range(7), 3, sampled)
        recorder = Recorder(reach_teacher(), 10_000)
        plain, recorded = play_one(reach_teacher(), vector, seeds), play_one(recorder, vector, seeds)
        assert (plain.episodes.returns == recorded.episodes.returns).all()
        assert recorder.states().shape == (7 * 50, 2)


# --- the linear baseline


def test_a_lesson_fits_its_time() -> None:
    """Law: labels and measured episodes take no longer than the time at the measured speed; too little time is None."""
    for steps in (50.0, 500.0, 5e3, 5e5):
        for length in (20.0, 1000.0):
            training_budget = affordable(Throughput(steps, length, 1.0), 20.0)
            if training_budget is not None:
                assert (training_budget.labels + ROUNDS * training_budget.episodes * length) / steps <= 0.6 * 20
    assert affordable(Throughput(50.0, 1000.0, 1.0), 20.0) is None
    assert affordable(Throughput(5e3, 100.0, 21.0), 20.0) is None
    assert affordable(Throughput(5e5, 100.0, 0.1), 20.0) is not None


# --- where


def test_the_machine_is_named() -> None:
    """Law: a record says on what it was measured."""
    found = machine()
    assert found["cpu"]
    assert found["cores"] >= 1
    assert {"kdcli", "torch", "onnxruntime", "gymnasium"} <= versions().keys()
