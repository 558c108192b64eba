"""The runtimes of the latency lab: what is timed acts as the agent does, and says what it needs."""

from __future__ import annotations

from pathlib import Path

import needs
import numpy as np
import pytest
from gymnasium import spaces
from sb3_agents import BOX, CNN, FEW, GRAY
from sb3_oracle import ACTIONS, ZOO_AGENTS, fresh, rows
from toy_teachers import REACH, choose_teacher, reach_teacher

from kdcli.agents.agent import Agent
from kdcli.benchmarks.entry import BenchEntry
from kdcli.benchmarks.latency import BATCH
from kdcli.benchmarks.program import Program
from kdcli.checkpoints.read import find_file, read, read_any
from kdcli.envs.vector import Vector
from kdcli.errors import KdcliError, UsageError
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.states import sampled
from kdcli.exporters.step import convert
from kdcli.progress import Event, Note
from kdcli.runtimes import RUNTIMES
from kdcli.runtimes import prepare as lab
from kdcli.runtimes.runtime import RuntimeEntry
from kdcli.runtimes.sb3 import SB3

OURS = [name for name in RUNTIMES.names() if name != "sb3"]
SAMPLE = Path(__file__).parents[2] / "sample_checkpoints" / "ppo" / "LunarLander-v3_1"
SEEN: dict[str, tuple[str, spaces.Space, dict]] = {
    "vector": ("PPO", BOX, {"normalized": True}),
    "image": ("PPO", GRAY, {"policy": "CnnPolicy", "policy_kwargs": CNN}),
    "dict": ("PPO", FEW, {}),
    "memory": ("RecurrentPPO", BOX, {"policy_kwargs": {"lstm_hidden_size": 8}}),
}
ALGORITHMS = ("A2C", "ARS", "CrossQ", "DDPG", "DQN", "MaskablePPO", "QRDQN", "SAC", "TD3", "TQC", "TRPO")


def entrant(agent: Agent, path: Path | None = None) -> RuntimeEntry:
    """The agent with its export and 80 states."""
    states = sampled(agent, 80, 0)
    file = convert(agent, states, ExportConfig()).agent
    return RuntimeEntry(BenchEntry(agent.name, agent, file, path=path), states)


@pytest.fixture(scope="module", params=SEEN)
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RuntimeEntry:
    """Agents that see a vector, an image, a Dict, and one with memory."""
    name, observation, settings = SEEN[request.param]
    teacher = fresh(tmp_path_factory.mktemp(name), name, observation, ACTIONS["discrete"], **settings)
    return entrant(read(teacher.path), teacher.path)


def first_action(made: Program, obs: np.ndarray) -> np.ndarray:
    """What the program gives first: the action, whatever the runtime wraps it in."""
    found = made.call(made.given(obs))
    found = next(iter(found.values())) if isinstance(found, dict) else found
    return np.asarray(found[0] if isinstance(found, list | tuple) else found)


@pytest.mark.parametrize("name", OURS)
def test_what_is_timed_acts_as_the_agent(name: str, seen: RuntimeEntry) -> None:
    """Law: in every runtime, on one observation and on 256, the call gives the agent's action."""
    made = RUNTIMES.load(name).program(seen)
    agent = seen.agent
    obs = seen.states.observations[np.resize(np.arange(80), BATCH)]
    wanted = agent.decode(agent.heads(obs))
    for n in (1, 2, BATCH):
        found = first_action(made, obs[:n])
        last = name in ("c", "c_native")  # a loop keeps what came last
        assert np.allclose(found.reshape(-1), wanted[n - 1 : n] if last else wanted[:n], atol=1e-4)
    assert made.block == 1 or name in ("c", "c_native")


@pytest.mark.parametrize("name", OURS)
def test_floors_take_the_same_and_do_nothing(name: str, seen: RuntimeEntry) -> None:
    """Law: the empty call of every runtime takes what the policy takes, and gives its first input back."""
    made, obs = RUNTIMES.load(name).program(seen), seen.states.observations[:1]
    assert made.floor is not None
    found = first_action(made.floor, obs)
    first = obs[obs.dtype.names[0]] if obs.dtype.names else obs
    assert np.allclose(found.reshape(-1), first.reshape(-1))


@pytest.mark.parametrize("name", [*ALGORITHMS, "PPO"])
def test_sb3_is_asked_as_its_users_ask(name: str, tmp_path: Path) -> None:
    """Law: the policy built from the zip acts as Stable-Baselines3's own after VecNormalize, for each algorithm."""
    action = ACTIONS["discrete" if name in ("DQN", "QRDQN", "MaskablePPO") else "box"]
    teacher = fresh(tmp_path, name, BOX, action, normalized=name in ("PPO", "SAC"))
    agent = read(teacher.path)
    made = SB3.program(entrant(agent, teacher.path))
    columns = teacher.columns(50)
    found = made.call(made.given(rows(agent, columns)))
    assert np.asarray(found) == pytest.approx(teacher.on(columns), abs=1e-5)
    assert made.floor is not None
    assert np.shape(made.floor.call(made.floor.given(rows(agent, columns)))[0])[0] == 50


@pytest.mark.parametrize("kind", SEEN)
def test_sb3_sees_what_others_see(kind: str, tmp_path: Path) -> None:
    """Law: images, Dicts and memory are given to Stable-Baselines3 as its envs give them."""
    name, observation, settings = SEEN[kind]
    teacher = fresh(tmp_path, name, observation, ACTIONS["discrete"], **settings)
    found = entrant(read(teacher.path), teacher.path)
    made = SB3.program(found)
    assert len(first_action(Program(lambda given: [made.call(given)], made.given), found.states.observations)) == 80


@needs.zoo
@pytest.mark.parametrize("folder", [folder for folder in ZOO_AGENTS if not folder.startswith("ars/")])
def test_sb3_builds_the_zoo(folder: str) -> None:
    """Law: agents saved by older versions are timed in Stable-Baselines3, too, and act alike.

    But for ARS, whose layers had other names.
    """
    path = find_file(needs.ZOO / folder)
    agent = read_any(path)
    assert isinstance(agent, Agent)
    assert SB3.program(entrant(agent, path)).floor is not None


def test_who_cannot_run_there_is_named(tmp_path: Path) -> None:
    """Law: a contender that a runtime cannot run is left out with a note that says why; if all are, it is an error."""
    heard: list[Event | Note] = []
    file = convert(choose_teacher(), None, ExportConfig())
    path = file.save(tmp_path / "choose.onnx")
    states = sampled(choose_teacher(), 80, 0)
    alone = RuntimeEntry(BenchEntry("file", None, file.agent, plays="onnxruntime", path=path), states)
    ready = lab.equip([entrant(choose_teacher()), alone], ["torch", "onnxruntime", "openvino"], heard.append)
    assert [list(entry.programs) for entry in ready] == [
        ["torch", "onnxruntime", "openvino"],
        ["onnxruntime", "openvino"],
    ]
    assert [note.text for note in heard if isinstance(note, Note)] == [
        "file is not timed in torch: file is an ONNX file: an exported file cannot be turned into another format"
    ]
    with pytest.raises(UsageError, match="nobody can be timed in c, sb3"):
        lab.equip([alone], ["c", "sb3"], heard.append)


@pytest.mark.parametrize("name", ["openvino", "sb3"])
def test_what_is_missing_is_named_with_its_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: a runtime that is not installed is an error with the very line that brings it, before anything is played."""
    monkeypatch.setattr(lab, "find_spec", lambda module: None)
    lab.check(["torch", "onnxruntime", "numpy", "torchscript"])
    with pytest.raises(UsageError) as caught:
        lab.check(["torch", name])
    assert caught.value.fix == f"pip install 'kdcli[{name}]'"


def test_c_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: without a C compiler, c is an error that says how to get one; an unknown runtime lists the known."""
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(UsageError, match="C cannot be exported here"):
        lab.check(["c"])
    with pytest.raises(UsageError, match="unknown runtime 'onnx'") as caught:
        lab.check(["onnx"])
    assert "openvino" in caught.value.why


def test_a_twin_is_made_and_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: an agent enters with its ONNX file, and without one, but with a note, where the file is refused."""
    heard: list[Event | Note] = []
    vector = Vector(REACH, 2)
    entry = BenchEntry("reach", reach_teacher())
    made = lab.enter(entry, vector, 40, 0, heard.append)
    assert (made.entry.exported is not None, len(made.states), heard) == (True, 40, [])
    assert made.onnx == convert(reach_teacher(), made.states, ExportConfig()).data

    def refused(_: RuntimeEntry, form: str) -> None:
        raise KdcliError(f"no {form}", "why not")

    monkeypatch.setattr(RuntimeEntry, "exported", refused)
    assert lab.enter(entry, vector, 40, 0, heard.append).entry is entry
    assert [note.text for note in heard if isinstance(note, Note)] == [
        "reach is not timed in onnxruntime: no onnx: why not"
    ]
