"""An exported file acts as the agent does, anywhere, and says what it is."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import needs
import numpy as np
import onnx
import pytest
from onnx import TensorProto
from pydantic import ValidationError
from sample_graphs import CASES
from sample_policies import POLICIES, agent, exported, observations, plain

from kdcli import artifact
from kdcli.agents import store
from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.folding import deployed
from kdcli.agents.observation import Preprocess
from kdcli.agents.onnx import session as runtime
from kdcli.agents.states import States
from kdcli.checkpoints.read import read
from kdcli.cli.console import Console
from kdcli.cli.main import main
from kdcli.errors import Exit, RefusedError, UsageError
from kdcli.exporters import EXPORTERS
from kdcli.exporters.config import OUTPUTS, ExportConfig
from kdcli.exporters.formats import Format
from kdcli.exporters.onnx.writer import FORMAT, WRITERS
from kdcli.exporters.states import gather, played
from kdcli.exporters.step import convert, export
from kdcli.graph.count import count
from kdcli.graph.operations import KINDS
from kdcli.graph.trace import output_names, trace
from kdcli.progress import Note
from kdcli.spec import Box, Discrete, EnvSpec, box, space_to_json

NEWEST = onnx.defs.onnx_opset_version()
every_policy = pytest.mark.parametrize("name", POLICIES)


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


@pytest.mark.parametrize("opset", [13, NEWEST])
@pytest.mark.parametrize("name", CASES)
def test_layers_are_torchs(name: str, opset: int) -> None:
    """Layers in shapes that no sample policy has are what torch makes of them."""
    case, config = CASES[name](), ExportConfig(opset=opset)
    found = FORMAT.runner(FORMAT.write(case.graph, config, "policy"), case.graph)(case.given)
    for key, array in case.wanted.items():
        assert (found[key].shape, found[key].dtype) == (array.shape, array.dtype)
        np.testing.assert_allclose(found[key], array, rtol=1e-5, atol=1e-5, err_msg=key)


def assert_acts_alike(agent: Agent, opset: int) -> None:
    ours = exported(agent, *output_names(agent), opset=opset).agent
    for n in (1, 7, 256):
        obs = observations(agent, n, seed=n)
        state = np.random.default_rng(n).normal(size=(n, agent.state_size)).astype(np.float32)
        found, heads = ours.run(obs, state), agent.heads(obs, state)
        said = heads.present()
        wanted = {"action": agent.decode(heads)} | {key: said[key].numpy() for key in output_names(agent)[1:]}
        if agent.state_size:
            wanted["state_out"] = said["state"].numpy()
        assert found.keys() == wanted.keys()
        for key, array in wanted.items():
            assert (found[key].shape, found[key].dtype) == (array.shape, array.dtype)
            exact = key == "action" and not isinstance(agent.action, Box)
            np.testing.assert_allclose(found[key], array, **({"rtol": 0} if exact else {"rtol": 1e-5, "atol": 1e-5}))
        assert np.array_equal(ours.step(obs, state)[0], found["action"])


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
    ours, counted = plain(name).agent, count(trace(deployed(agent)))
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


EXPORT_ALONE = """
import sys, hashlib
sys.path.insert(0, sys.argv[1])
from sample_policies import plain
print(hashlib.sha256(b"".join(plain(name).data for name in sys.argv[2:])).hexdigest())
"""


def test_bytes_are_the_same_in_every_process(tmp_path: Path) -> None:
    """The same agent gives the same bytes, whatever the process, its hash seed and its folder."""
    names = ("multi_discrete", "tanh_each", "sees_normalized")
    command = [sys.executable, "-c", EXPORT_ALONE, str(Path(__file__).parent), *names]
    environment = {**os.environ, "PYTHONHASHSEED": "1234"}
    elsewhere = subprocess.check_output(command, cwd=tmp_path, env=environment, text=True).strip()
    assert elsewhere == hashlib.sha256(b"".join(plain(name).data for name in names)).hexdigest()


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
    assert (record["normalizer"], record["rule"]) == (None, {"squash": "tanh", "limit": 0.3, "masked": False})
    assert record["parents"] == parents
    assert record["config"]["outputs"] == ["action", "mean"]
    assert record["parity"] == made.parity.to_json()
    assert (made.parity.n_states, made.parity.source, made.parity.ties) == (40, "rollout", 0)
    assert made.parity.max_abs_difference < 1e-6
    assert {"python", "kdcli", "torch", "onnx", "onnxruntime"} == record["versions"].keys()


def test_images_are_scaled_inside() -> None:
    """Images are divided by 255 inside the file, once they are real numbers."""
    agent = POLICIES["sees_image"]()
    assert [op.kind for op in trace(agent).ops[:3]] == ["cast", "scale", "flatten"]


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
    assert all(isinstance(EXPORTERS.load(name), Format) for name in EXPORTERS.names())


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


def cartpole(env: str = "CartPole-v1") -> Agent:
    """A policy for a real env."""
    preprocess = Preprocess(box((4,)))
    return replace(agent(ActionRule(Discrete(2)), preprocess), env=EnvSpec(env))


def test_states_are_the_agents_own_play() -> None:
    """Without states of the caller's, file and agent are compared where the agent goes: not twice the same state."""
    made = convert(cartpole(), None, ExportConfig(states=120))
    assert (made.parity.n_states, made.parity.source) == (120, "rollout")
    states = gather(cartpole(), 120, 0).observations
    assert np.array_equal(states, gather(cartpole(), 120, 0).observations)
    assert len(np.unique(states, axis=0)) == 120
    assert not np.array_equal(states, gather(cartpole(), 120, 1).observations)


@pytest.mark.parametrize("env", ["Nowhere-v0", "Acrobot-v1"])
def test_an_env_that_is_not_there_is_said(env: str) -> None:
    """An export needs no env; that it was not checked in one is said, to the user and in the file."""
    heard: list[object] = []
    assert gather(cartpole(env), 10, 0, heard.append).source == "sampled"
    (note,) = heard
    assert isinstance(note, Note)
    assert "not on the agent's own play" in note.text
    assert env in note.text
    assert convert(cartpole(env), None, ExportConfig(states=10)).parity.source == "sampled"
    with pytest.raises(UsageError):
        played(cartpole(env), 10, 0)


def run(*words: object) -> tuple[int, str, str]:
    """Exit code, answer and conversation of a command line."""
    out, err = io.StringIO(), io.StringIO()
    return main([*map(str, words)], Console(out, err)), out.getvalue(), err.getvalue()


def test_command_answers_with_the_path(tmp_path: Path) -> None:
    """`kdcli export` prints where the file is, or with --json all there is to say; the same bytes both times."""
    source, first, second = (tmp_path / name for name in ("agent.safetensors", "a.onnx", "b.onnx"))
    store.save(source, cartpole(), {})
    code, out, err = run("export", source, "-o", first, "--states", 50, "--outputs", "logits")
    assert (code, out) == (Exit.DONE, f"{first}\n")
    assert "acts as the agent does in 50 states (rollout)" in err
    said = json.loads(run("export", source, "-o", second, "--states", 50, "--outputs", "action,logits", "--json")[1])
    assert first.read_bytes() == second.read_bytes()
    assert said["schema"] == "kdcli.export/1"
    assert said["sha256"] == artifact.sha256(second)
    assert (said["outputs"], said["parity"]["source"]) == (["action", "logits"], "rollout")
    assert runtime.load(first).record["parents"] == [artifact.parent(source)]


def test_command_refuses(tmp_path: Path) -> None:
    """What was asked and cannot be done is an error: an env misspelt, a file that is there, an export of an export."""
    source, path = tmp_path / "agent.safetensors", tmp_path / "a.onnx"
    store.save(source, cartpole(), {})
    assert run("export", source, "-o", path, "--env", "CartPol-v1")[0] == Exit.USAGE
    assert not path.exists()
    assert run("export", source, "-o", path, "--states", 5)[0] == Exit.DONE
    assert run("export", source, "-o", path)[0] == Exit.USAGE
    assert run("export", path, "-o", tmp_path / "b.onnx")[0] == Exit.REFUSED


@needs.zoo
@pytest.mark.parametrize("path", sorted(needs.ZOO.glob("*/*/*.zip")), ids=lambda path: path.parent.name)
def test_real_agents(path: Path) -> None:
    """Agents that people trained are exported, and act as they did."""
    agent = read(path)
    made = convert(agent, None, ExportConfig(outputs=output_names(agent)))
    assert made.parity.max_abs_difference <= 1e-5
    assert made.parity.ties == 0
