"""An exported file is an agent, or is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from sample_policies import POLICIES, exported, observations, plain

from kdcli.agents.onnx import session as runtime
from kdcli.errors import RefusedError, UsageError
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.step import export
from kdcli.spec import Discrete, space_to_json


@pytest.fixture
def sample() -> bytes:
    """The bytes of one exported file."""
    return plain("sees_normalized").data


LOAD_ALONE = """
import sys, pathlib, kdcli.exporters.config, kdcli.agents.onnx.session as runtime
assert not {"torch", "onnx", "onnxruntime"} & sys.modules.keys()
agent = runtime.load(pathlib.Path(sys.argv[1]))
agent.act(__import__("numpy").zeros((3, 5)))
assert "torch" not in sys.modules
"""


def test_runtime_needs_no_torch(tmp_path: Path, sample: bytes) -> None:
    """An exported file is loaded and acts without torch; naming the options of an export loads nothing heavy."""
    (tmp_path / "policy.onnx").write_bytes(sample)
    subprocess.run([sys.executable, "-c", LOAD_ALONE, tmp_path / "policy.onnx"], check=True)


def test_loaded_agent_knows_itself(tmp_path: Path) -> None:
    """Name, env and spaces come out of the file as they went in."""
    agent, path = POLICIES["discrete_start"](), tmp_path / "policy.onnx"
    export(agent, path, None, ExportConfig())
    found = runtime.load(path)
    assert (found.name, found.env, found.size_bytes) == (agent.name, agent.env, path.stat().st_size)
    assert space_to_json(found.observation) == space_to_json(agent.observation)
    assert found.action == Discrete(4, start=-2)


def test_one_thread() -> None:
    """A measured latency is that of one thread."""
    options = plain("tanh").agent.session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)


@pytest.mark.parametrize("name", ["sees_float64", "tanh", "sees_image"])
def test_observations_of_another_dtype(name: str) -> None:
    """Equal observations of another dtype give equal actions, as they do with the agent."""
    agent = POLICIES[name]()
    obs = np.round(observations(agent, 20))
    assert np.array_equal(plain(name).agent.act(obs.astype(np.int64)), plain(name).agent.act(obs))
    assert np.array_equal(agent.act(obs.astype(np.int64)), agent.act(obs))


DISTRIBUTIONS = {
    "discrete_start": ("logits",),
    "multi_discrete": ("logits",),
    "multi_binary": ("logits",),
    "constant_spread": ("mean", "log_std"),
    "linear_spread": ("mean", "log_std"),
    "gsde_spread": ("mean", "log_std"),
    "q": (),
    "tanh": (),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_sampled_play_is_the_agents(name: str) -> None:
    """With equal generators, file and agent draw the same actions; without a distribution, both are greedy."""
    agent = POLICIES[name]()
    ours, obs = exported(agent, *DISTRIBUTIONS[name]).agent, observations(agent, 200)
    found, wanted = (player.act(obs, np.random.default_rng(5)) for player in (ours, agent))
    assert found.dtype == wanted.dtype
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert np.array_equal(found, ours.act(obs)) == (not DISTRIBUTIONS[name])


@pytest.mark.parametrize("name", ["discrete", "gsde_spread"])
def test_sampled_play_needs_the_distribution(name: str) -> None:
    """A file without the distribution says which outputs it would need."""
    agent = POLICIES[name]()
    with pytest.raises(UsageError) as raised:
        exported(agent).agent.act(observations(agent, 2), np.random.default_rng(0))
    assert f"--outputs action,{','.join(DISTRIBUTIONS.get(name, ('logits',)))}" in raised.value.fix


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_changed_byte_is_noticed(data: st.DataObject) -> None:
    """Any byte that is another, and any byte that is missing, is noticed; what is still used acts as it did."""
    made = plain("sees_normalized")
    place = data.draw(st.integers(0, len(made.data) - 1))
    changed = bytes([made.data[place] ^ data.draw(st.integers(1, 255))])
    obs = observations(POLICIES["sees_normalized"](), 50)
    with pytest.raises(RefusedError):
        runtime.from_bytes(made.data[:place], "policy.onnx")
    try:
        found = runtime.from_bytes(made.data[:place] + changed + made.data[place + 1 :], "policy.onnx")
    except RefusedError:
        return
    assert found.edits
    assert np.array_equal(found.act(obs), made.agent.act(obs))


def foreign() -> onnx.ModelProto:
    """A file that kdcli did not write."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in ("obs", "action")]
    node = helper.make_node("Add", ["obs", "w"], ["action"])
    weight = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    return helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:], [weight]))


def outside(model: onnx.ModelProto) -> onnx.ModelProto:
    """The file, its weight kept in another file."""
    (weight,) = model.graph.initializer
    weight.ClearField("float_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="/etc/passwd")
    return model


@pytest.mark.parametrize("data", [b"", b"\x08", b"not onnx at all", b"PK\x03\x04"])
def test_what_is_no_onnx_is_refused(data: bytes, tmp_path: Path) -> None:
    """Any bytes at all end in a refusal."""
    (tmp_path / "policy.onnx").write_bytes(data)
    with pytest.raises(RefusedError):
        runtime.load(tmp_path / "policy.onnx")


def test_foreign_onnx_is_refused() -> None:
    """A file kdcli did not write says nothing of spaces and actions: it is refused, and why."""
    with pytest.raises(RefusedError, match="was not exported by kdcli"):
        runtime.from_bytes(foreign().SerializeToString(), "foreign.onnx")


def test_weights_elsewhere_are_refused() -> None:
    """A file that names other files is refused before anything of it is run."""
    inner = outside(foreign()).graph
    nested = foreign()
    nested.graph.node.append(helper.make_node("If", ["c"], ["x"], then_branch=inner, else_branch=inner))
    for model in (outside(foreign()), nested):
        with pytest.raises(RefusedError, match="keeps weights in other files"):
            runtime.from_bytes(model.SerializeToString(), "foreign.onnx")


def test_record_of_a_newer_kdcli(sample: bytes) -> None:
    """A schema this version does not know is refused by name."""
    newer = sample.replace(b'"schema":2', b'"schema":3')
    with pytest.raises(RefusedError, match="schema 3"):
        runtime.from_bytes(newer, "policy.onnx")


def stamped(model: onnx.ModelProto, record: Mapping[str, object]) -> bytes:
    """The file with this record, whole by its digest."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    found.metadata_props.add(key=runtime.KEY, value=runtime.blank_record(record))
    return runtime.seal(found.SerializeToString())


@pytest.mark.parametrize("lie", [{"rule": {"squash": "tanh"}}, {"observation": {}}, {"sampled_by": 3}, {"env": {}}])
def test_a_record_that_is_none(lie: dict[str, object], sample: bytes) -> None:
    """A whole file whose record does not say what an agent is, or whose ends have other names, is refused."""
    model = onnx.load_model_from_string(sample)
    record = runtime.from_bytes(sample, "policy.onnx").record
    del model.metadata_props[:]
    with pytest.raises(RefusedError, match="describe"):
        runtime.from_bytes(stamped(model, {**record, **lie}), "policy.onnx")
    runtime.from_bytes(stamped(model, record), "policy.onnx")
    model.graph.input[0].name = "observation"
    model.graph.node[0].input[0] = "observation"
    with pytest.raises(RefusedError, match="does not describe a policy"):
        runtime.from_bytes(stamped(model, record), "policy.onnx")


def test_a_path_that_is_none(tmp_path: Path) -> None:
    """A file that is not there is a mistake of the caller."""
    with pytest.raises(UsageError, match="cannot read"):
        runtime.load(tmp_path / "none.onnx")
