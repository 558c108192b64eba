"""An exported file acts as the agent does, anywhere, and says what it is."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from pydantic import ValidationError
from sample_policies import POLICIES, normalizer, observations

from kdcli import artifact
from kdcli.agents import runtime
from kdcli.agents.agent import Agent
from kdcli.errors import KdcliError, RefusedError, UsageError
from kdcli.exporters import EXPORTERS
from kdcli.exporters.config import OUTPUTS, ExportConfig
from kdcli.exporters.onnx import WRITERS, write
from kdcli.exporters.parity import SINGLES, States, check
from kdcli.exporters.states import sampled
from kdcli.exporters.step import Exported, convert, export
from kdcli.graph.count import count
from kdcli.graph.operations import KINDS
from kdcli.graph.trace import output_names, trace
from kdcli.spec import Box, Discrete, space_to_json

NEWEST = onnx.defs.onnx_opset_version()
every_policy = pytest.mark.parametrize("name", POLICIES)


def exported(agent: Agent, *outputs: str, opset: int = 17, n: int = 40) -> Exported:
    config = ExportConfig(outputs=outputs, opset=opset)
    return convert(agent, States(observations(agent, n)), config)


@cache
def plain(name: str) -> Exported:
    """A sample policy exported with no option."""
    return exported(POLICIES[name]())


@pytest.fixture
def sample() -> bytes:
    """The bytes of one exported file."""
    return plain("sees_normalized").data


def test_every_kind_has_a_writer() -> None:
    """What a graph may say, the ONNX writer can write, and nothing else."""
    assert WRITERS.keys() == KINDS.keys()


@every_policy
def test_file_acts_like_the_agent(name: str) -> None:
    """At batches of 1, 7 and 256 the file's outputs are the agent's: choices equal, real numbers to 1e-5."""
    assert_acts_alike(POLICIES[name](), ExportConfig().opset)


@pytest.mark.parametrize("opset", [13, 18, 20, NEWEST])
def test_file_acts_like_the_agent_in_any_opset(opset: int) -> None:
    """The same of every kind of operation, in the oldest opset, the newest, and where a writer changes its words."""
    left = set(KINDS)
    for make in POLICIES.values():
        agent = make()
        kinds = {op.kind for op in trace(agent, output_names(agent)).ops}
        if left & kinds:
            assert_acts_alike(agent, opset)
        left -= kinds
    assert not left


def assert_acts_alike(agent: Agent, opset: int) -> None:
    ours = exported(agent, *output_names(agent), opset=opset).agent
    for n in (1, 7, 256):
        obs = observations(agent, n, seed=n)
        found, heads = ours.run(obs), agent.heads(obs).present()
        wanted = {"action": agent.act(obs)} | {key: heads[key].numpy() for key in output_names(agent)[1:]}
        assert found.keys() == wanted.keys()
        for key, array in wanted.items():
            assert (found[key].shape, found[key].dtype) == (array.shape, array.dtype)
            exact = key == "action" and not isinstance(agent.action, Box)
            np.testing.assert_allclose(found[key], array, **({"rtol": 0} if exact else {"rtol": 1e-5, "atol": 1e-5}))
        assert np.array_equal(ours.act(obs), found["action"])


@every_policy
def test_file_is_sound(name: str) -> None:
    """onnx's own checker accepts the finished file; it is one file, of the plain operator set asked for."""
    model = onnx.load_model_from_string(plain(name).data)
    onnx.checker.check_model(model, full_check=True)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]
    assert (model.ir_version, model.producer_name) == (8, "kdcli")
    assert not any(map(onnx.external_data_helper.uses_external_data, model.graph.initializer))
    assert [entry.key for entry in model.metadata_props] == ["kdcli"]


@every_policy
def test_numbers_in_the_file_are_the_graphs(name: str) -> None:
    """Parameters, constants and multiply-adds counted in the file are those of the graph: neither more nor less."""
    agent = POLICIES[name]()
    ours, counted = plain(name).agent, count(trace(agent))
    found = (ours.n_params, ours.n_constants, ours.multiply_adds)
    assert found == (counted.n_params, counted.n_constants, counted.multiply_adds)
    assert ours.n_params == agent.n_params


def test_input_and_output_are_the_envs() -> None:
    """`obs` is what the env gives and `action` what it takes, with a batch of any size."""
    model = onnx.load_model_from_string(plain("sees_normalized").data)
    ends = [*model.graph.input, *model.graph.output]
    shapes = [[d.dim_param or d.dim_value for d in end.type.tensor_type.shape.dim] for end in ends]
    assert [end.name for end in ends] == ["obs", "action"]
    assert shapes == [["batch", 5], ["batch"]]
    assert [end.type.tensor_type.elem_type for end in ends] == [TensorProto.DOUBLE, TensorProto.INT64]


RUN_ALONE = """
import sys, numpy as np, onnxruntime
arrays = np.load(sys.argv[2])
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
assert np.array_equal(session.run(["action"], {"obs": arrays["obs"]})[0], arrays["action"])
assert not {"kdcli", "torch", "onnx"} & sys.modules.keys()
"""


def test_file_runs_without_kdcli_and_torch(tmp_path: Path) -> None:
    """Raw observations in, actions out, with nothing but onnxruntime and the file."""
    agent, path = POLICIES["sees_normalized_matrix"](), tmp_path / "policy.onnx"
    obs = observations(agent, 64)
    export(agent, path, States(obs), ExportConfig())
    np.savez(tmp_path / "arrays.npz", obs=obs, action=agent.act(obs))
    subprocess.run([sys.executable, "-c", RUN_ALONE, path, tmp_path / "arrays.npz"], check=True)


LOAD_ALONE = """
import sys, pathlib, kdcli.exporters.config, kdcli.agents.runtime as runtime
assert not {"torch", "onnx", "onnxruntime"} & sys.modules.keys()
agent = runtime.load(pathlib.Path(sys.argv[1]))
agent.act(__import__("numpy").zeros((3, 5)))
assert "torch" not in sys.modules
"""


def test_runtime_needs_no_torch(tmp_path: Path, sample: bytes) -> None:
    """An exported file is loaded and acts without torch; naming the options of an export loads nothing heavy."""
    (tmp_path / "policy.onnx").write_bytes(sample)
    subprocess.run([sys.executable, "-c", LOAD_ALONE, tmp_path / "policy.onnx"], check=True)


EXPORT_ALONE = """
import sys, hashlib
sys.path.insert(0, sys.argv[1])
from sample_policies import POLICIES
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.step import convert
agents = [POLICIES[name]() for name in ("multi_discrete", "gsde_spread", "sees_normalized")]
data = [convert(agent, None, ExportConfig(outputs=["logits"] if i != 1 else ["log_std"])).data
        for i, agent in enumerate(agents)]
print(hashlib.sha256(b"".join(data)).hexdigest())
"""


def test_bytes_are_the_same_in_every_process(tmp_path: Path) -> None:
    """The same agent gives the same bytes, whatever the process, its hash seed and its folder."""
    digests = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        command = [sys.executable, "-c", EXPORT_ALONE, str(Path(__file__).parent)]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        digests.append(subprocess.check_output(command, cwd=folder, env=environment))
    assert len(set(digests)) == 1


@every_policy
def test_bytes_are_the_same_twice(name: str) -> None:
    """Exporting again, after other exports, changes nothing."""
    assert exported(POLICIES[name]()).data == plain(name).data


def test_file_keeps_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No path of this machine and no time of day is in the file."""
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "teacher.zip"
    source.write_bytes(b"teacher")
    agent = POLICIES["gsde_spread"]()
    data = convert(agent, None, ExportConfig(outputs=("mean", "log_std")), [artifact.parent(source)]).data
    for place in (tmp_path, Path(__file__).parents[2], Path.home(), Path(sys.prefix)):
        assert str(place).encode() not in data
    assert b"20" + b"26-" not in data
    assert hashlib.sha256(b"teacher").hexdigest().encode() in data


def test_record_says_all_there_is_to_know() -> None:
    """The metadata is one JSON text: what it observes, how it acts, where it comes from, how alike it is."""
    agent = POLICIES["tanh_limit"]()
    parents = [{"name": "teacher.zip", "sha256": "ab"}]
    config = ExportConfig(outputs=("mean",))
    made = convert(agent, States(observations(agent, 40), "rollout"), config, parents)
    (entry,) = onnx.load_model_from_string(made.data).metadata_props
    record = json.loads(entry.value)
    assert json.dumps(record, sort_keys=True, separators=(",", ":")) == entry.value
    assert (record["observation"], record["action"]) == (space_to_json(agent.observation), space_to_json(agent.action))
    assert (record["env"]["id"], record["facts"]) == ("Sample-v0", {"algorithm": "none"})
    assert (record["normalizer"], record["rule"]) == (False, {"squash": "tanh", "limit": 0.3})
    assert record["parents"] == parents
    assert record["config"]["outputs"] == ["action", "mean"]
    assert record["parity"] == made.parity.to_json()
    assert (made.parity.n_states, made.parity.source, made.parity.ties) == (40, "rollout", 0)
    assert made.parity.max_abs_difference < 1e-6
    assert {"python", "kdcli", "torch", "onnx", "onnxruntime"} == record["versions"].keys()


# ---------------------------------------------------------------- parity


@pytest.mark.parametrize("name", ["clip", "tanh", "discrete", "multi_discrete", "multi_binary", "quantiles", "value"])
def test_another_agent_is_noticed(name: str) -> None:
    """A file that acts otherwise than the agent does not pass, however the agent acts."""
    agent, other = POLICIES[name](), POLICIES[name]()
    with torch.no_grad():
        other.policy.network.head.bias[0] += 0.5
    states = States(observations(agent, 300))
    data = write(trace(agent), ExportConfig())
    assert check(data, agent, states).ties == 0
    with pytest.raises(RefusedError, match="does not act like the agent"):
        check(data, other, states)


@pytest.mark.parametrize("name", ["logits", "value"])
def test_every_output_is_compared(name: str) -> None:
    """A wrong output is noticed although the actions are right."""
    agent, other = POLICIES["value"](), POLICIES["value"]()
    with torch.no_grad():
        other.policy.network.head.bias += 1e-3
        other.policy.value.head.bias += 1e-3  # type: ignore[union-attr]
    data = write(trace(other, ["action", name]), ExportConfig())
    with pytest.raises(RefusedError, match="does not act like the agent"):
        check(data, agent, States(observations(agent, 50)))


def test_one_wrong_state_is_enough() -> None:
    """One state among a thousand, anywhere, in which the file acts otherwise is noticed."""
    agent, other = POLICIES["sees_discrete"](), POLICIES["sees_discrete"]()
    with torch.no_grad():
        other.policy.network.linears()[0].weight[:, 4] *= -1
    assert agent.act(np.array([4])) != other.act(np.array([4]))
    data = write(trace(other), ExportConfig())
    for place in (0, SINGLES - 1, SINGLES, 500, 999):
        obs = np.zeros(1000, np.int64)
        assert check(data, agent, States(obs)).max_abs_difference == 0
        obs[place] = 4
        with pytest.raises(RefusedError) as raised:
            check(data, agent, States(obs))
        assert raised.value.why.startswith("in 1 of 1000 states")


def leaning(name: str, lead: float) -> Agent:
    """A policy whose outputs are the same everywhere: they climb from -lead to lead."""
    agent = POLICIES[name]()
    with torch.no_grad():
        agent.policy.network.head.weight.zero_()
        agent.policy.network.head.bias[:] = lead * torch.linspace(-1, 1, len(agent.policy.network.head.bias))
    return agent


@pytest.mark.parametrize("name", ["discrete", "multi_discrete", "multi_binary", "q"])
def test_ties_are_counted(name: str) -> None:
    """Where the agent's best two are equal either is right, and this is said; a clear best is not a tie."""
    states = States(np.zeros((100, 5), np.float32))
    up, down = (write(trace(leaning(name, lead)), ExportConfig()) for lead in (8e-7, -8e-7))
    assert check(up, leaning(name, 8e-7), states).ties == 0
    assert check(down, leaning(name, 8e-7), states).ties == 100
    with pytest.raises(RefusedError, match="does not act like the agent"):
        check(down, leaning(name, 1e-3), states)


def test_nan_is_no_parity() -> None:
    """An agent whose outputs are not numbers is not exported."""
    agent = POLICIES["tanh"]()
    with torch.no_grad():
        agent.policy.network.head.weight[0, 0] = float("nan")
    with pytest.raises(RefusedError, match="does not act like the agent"):
        exported(agent)


@pytest.mark.parametrize("shape", [(0, 5), (4, 6), (5,)])
def test_states_of_another_shape(shape: tuple[int, ...]) -> None:
    """States the agent cannot observe, or none, are a mistake of the caller."""
    with pytest.raises(UsageError, match="cannot be compared"):
        convert(POLICIES["tanh"](), States(np.zeros(shape, np.float32)), ExportConfig())


@every_policy
def test_drawn_states_are_observations(name: str) -> None:
    """Without a rollout, states come from the space: its shape, dtype and bounds; equal seeds give equal states."""
    agent = POLICIES[name]()
    states = sampled(agent, 200, 3)
    obs, space = states.observations, agent.observation
    assert (obs.shape, obs.dtype.name, states.source) == ((200, *space.shape), space.dtype, "sampled")
    assert np.array_equal(obs, sampled(agent, 200, 3).observations)
    assert len(np.unique(obs, axis=0)) > 1
    if isinstance(space, Box):
        assert ((obs >= space.low) & (obs <= space.high)).all()


def test_drawn_states_are_where_the_normalizer_was() -> None:
    """A normalizer knows where observations were: drawn states are there."""
    agent = POLICIES["sees_normalized"]()
    norm, obs = normalizer((5,)), sampled(agent, 20_000, 0).observations
    np.testing.assert_allclose(obs.mean(0), norm.mean, atol=0.05)
    np.testing.assert_allclose(obs.std(0), norm.scale, rtol=0.05)


# ---------------------------------------------------------------- the step


def test_nothing_is_written_when_it_does_not_act_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer's mistake ends in an error, not in a file."""
    monkeypatch.setitem(WRITERS, "tanh", WRITERS["relu"])  # type: ignore[misc]
    agent = POLICIES["tanh"]()
    with pytest.raises(RefusedError, match="does not act like the agent"):
        export(agent, tmp_path / "policy.onnx", States(observations(agent, 40)), ExportConfig())
    assert not list(tmp_path.iterdir())


def test_an_output_is_not_overwritten(tmp_path: Path) -> None:
    """A file that is there stays as it is, unless one insists."""
    agent, path = POLICIES["tanh"](), tmp_path / "policy.onnx"
    path.write_text("dear")
    with pytest.raises(UsageError, match="exists"):
        export(agent, path, None, ExportConfig())
    assert path.read_text() == "dear"
    made = export(agent, path, None, ExportConfig(), force=True)
    assert path.read_bytes() == made.data
    assert [entry.name for entry in tmp_path.iterdir()] == ["policy.onnx"]


def test_exporters_are_there() -> None:
    """Every row of the table can be loaded."""
    assert all(callable(EXPORTERS.load(name)) for name in EXPORTERS.names())


def test_config_reads_names_joined_by_commas() -> None:
    """Outputs may be typed in one word or several; the action is always first, each is there once."""
    for given_ in ("action,logits", ["logits"], ["logits", "action"], "logits, logits"):
        assert ExportConfig(outputs=given_).outputs == ("action", "logits")  # type: ignore[arg-type]
    assert ExportConfig().outputs == ExportConfig(outputs=()).outputs == ("action",)


@pytest.mark.parametrize("bad", [{"outputs": "logit"}, {"outputs": 3}, {"opset": 12}, {"states": 0}, {"opsett": 17}])
def test_config_refuses(bad: dict[str, object]) -> None:
    """A misspelt or impossible option is an error, not a default."""
    with pytest.raises(ValidationError):
        ExportConfig(**bad)  # type: ignore[arg-type]


def test_outputs_of_the_config_are_heads() -> None:
    """The names an export can be asked for are those that agents have."""
    assert set(OUTPUTS) == {name for make in POLICIES.values() for name in output_names(make())}


def test_unknown_opset() -> None:
    """An opset that the installed onnx does not know is a mistake of the caller, who is told the newest."""
    with pytest.raises(UsageError) as raised:
        exported(POLICIES["tanh"](), opset=NEWEST + 1)
    assert str(NEWEST) in raised.value.why


# ---------------------------------------------------------------- the file as an agent


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
def test_a_changed_byte_is_refused(data: st.DataObject) -> None:
    """Any byte that is another, and any byte that is missing, is noticed."""
    whole = plain("sees_normalized").data
    place = data.draw(st.integers(0, len(whole) - 1))
    changed = bytes([whole[place] ^ data.draw(st.integers(1, 255))])
    for broken in (whole[:place] + changed + whole[place + 1 :], whole[:place]):
        with pytest.raises(RefusedError):
            runtime.from_bytes(broken, "policy.onnx")


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
    newer = sample.replace(b'"schema":1', b'"schema":2')
    with pytest.raises(RefusedError, match="schema 2"):
        runtime.from_bytes(newer, "policy.onnx")


def test_a_path_that_is_none(tmp_path: Path) -> None:
    """A file that is not there is a mistake of the caller."""
    with pytest.raises(UsageError, match="cannot read"):
        runtime.load(tmp_path / "none.onnx")


def test_images_are_scaled_inside() -> None:
    """Images are divided by 255 inside the file, once they are real numbers."""
    agent = POLICIES["sees_image"]()
    assert [op.kind for op in trace(agent).ops[:3]] == ["cast", "scale", "flatten"]


# ---------------------------------------------------------------- real agents

ZOO = Path(os.environ.get("KDCLI_ZOO", "/nonexistent"))


@pytest.mark.skipif(not ZOO.is_dir(), reason="set KDCLI_ZOO to a folder of Stable-Baselines3 checkpoints")
@pytest.mark.parametrize("path", sorted(ZOO.glob("*/*/*.zip")), ids=lambda path: path.parent.name)
def test_real_agents(path: Path) -> None:
    """Agents that people trained are exported, and act as they did."""
    read = pytest.importorskip("kdcli.checkpoints.read").read
    try:
        agent = read(path)
    except KdcliError as error:
        pytest.skip(error.what)
    made = convert(agent, None, ExportConfig(outputs=output_names(agent)[1:]))
    assert made.parity.max_abs_difference <= 1e-5
