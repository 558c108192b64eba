"""Programs of torch act as the agent does, and tell nothing of the machine that wrote them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from sample_policies import POLICIES, observations
from torch.export.passes import move_to_device_pass

from kdcli.agents.states import States
from kdcli.errors import UsageError
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.step import Exported, convert
from kdcli.exporters.torch.module import FUNCTIONS, GraphModule
from kdcli.exporters.torch.programs import _without_deprecations as quiet
from kdcli.exporters.torch.programs import write_program, write_script
from kdcli.graph.operations import KINDS, Graph
from kdcli.graph.trace import output_names, trace
from kdcli.spec import feed

FORMATS = {"torchscript": ".pt", "exported": ".pt2"}


def exported(name: str, form: str, n: int = 40) -> Exported:
    agent = POLICIES[name]()
    slots = 4 if agent.state_size else 1
    outputs = tuple(output_names(agent))
    return convert(agent, States(observations(agent, n), slots=slots), ExportConfig(format=form, outputs=outputs))


def test_every_kind_has_a_function() -> None:
    """What a graph may say, a module can do, and nothing else."""
    assert FUNCTIONS.keys() == KINDS.keys()


@pytest.mark.parametrize("name", POLICIES)
def test_module_acts_like_the_agent(name: str) -> None:
    """The module of a graph gives what the agent gives, at batches of 1 and 7."""
    agent = POLICIES[name]()
    graph = trace(agent, output_names(agent))
    for n in (1, 7):
        obs = observations(agent, n)
        state = np.random.default_rng(0).normal(size=(n, agent.state_size)).astype(np.float32)
        given = {**feed(agent.observation, obs), "state_in": state}
        found = GraphModule(graph)(*(torch.from_numpy(given[port.name]) for port in graph.inputs))
        tensors = found if isinstance(found, tuple) else (found,)
        heads = agent.heads(obs, state)
        wanted = {"action": agent.decode(heads), **{k: t.numpy() for k, t in heads.present().items() if k != "action"}}
        wanted["state_out"] = wanted.pop("state", None)
        for port, tensor in zip(graph.outputs, tensors, strict=True):
            assert tensor.shape == (n, *port.shape)
            np.testing.assert_allclose(tensor.numpy(), wanted[port.name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["tanh_each", "gru_dict", "masked_multi_binary", "stack_image"])
@pytest.mark.parametrize("form", FORMATS)
def test_programs_are_checked_and_say_what_they_are(form: str, name: str) -> None:
    """The file passed the comparison with the agent, and holds its record."""
    made = exported(name, form)
    assert (list(made.files), made.parity.n_states) == ([FORMATS[form]], 40)
    with zipfile.ZipFile(io.BytesIO(made.data)) as archive:
        record = json.loads(archive.read("archive/extra/kdcli.json"))
    assert record["parity"] == made.parity.to_json()
    assert record["inputs"] == made.record["inputs"]


@pytest.mark.parametrize("form", FORMATS)
def test_programs_keep_secrets(form: str) -> None:
    """No path of this machine is in any member, and the same agent gives the same bytes."""
    made = exported("lstm_value", form)
    with zipfile.ZipFile(io.BytesIO(made.data)) as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    for place in (Path(__file__).parents[2], Path(sys.prefix), Path.home()):
        assert str(place).encode() not in content
    assert exported("lstm_value", form).data == made.data


ALONE = """
import sys, numpy as np, torch, warnings
warnings.simplefilter("ignore")
arrays = np.load(sys.argv[2])
load = torch.jit.load if sys.argv[1].endswith(".pt") else lambda path: torch.export.load(path).module()
with torch.no_grad():
    action = load(sys.argv[1])(torch.from_numpy(arrays["obs"]))
assert np.allclose(action.numpy(), arrays["action"], atol=1e-5)
assert "kdcli" not in sys.modules
"""


@pytest.mark.parametrize("form", FORMATS)
def test_programs_run_without_kdcli(form: str, tmp_path: Path) -> None:
    """torch alone loads the file, raw observations in, actions out."""
    agent, made = POLICIES["sees_normalized_matrix"](), exported("sees_normalized_matrix", form)
    made = convert(agent, States(observations(agent, 10)), ExportConfig(format=form))
    path = made.save(tmp_path / f"policy{FORMATS[form]}")
    obs = observations(agent, 64)
    np.savez(tmp_path / "arrays.npz", obs=obs, action=agent.act(obs))
    subprocess.run([sys.executable, "-c", ALONE, path, tmp_path / "arrays.npz"], check=True)


def test_options_that_are_not_followed() -> None:
    """Half precision is ONNX's; another format refuses it rather than leave it out silently."""
    agent = POLICIES["tanh"]()
    with pytest.raises(UsageError, match="fp16"):
        convert(agent, States(observations(agent, 4)), ExportConfig(format="torchscript", precision="fp16"))


def _written_in(program: torch.jit.ScriptModule) -> list[str]:
    """Devices and tensors in the code itself, which stay where they were; single numbers go with any device."""
    code = program.inlined_graph  # nodes last as long as it does
    nodes = map(str, code.findAllNodes("prim::Constant"))
    return [text for text in nodes if "[ CPU" in text or 'value="cpu' in text]


def _on_meta(program: torch.nn.Module, graph: Graph) -> None:
    """Moved to another device, it takes inputs that are there, and answers there."""
    given = [torch.zeros((3, *p.shape), dtype=getattr(torch, p.dtype), device="meta") for p in graph.inputs]
    found = program.to("meta")(*given)
    for tensor in found if isinstance(found, tuple | list) else (found,):
        assert tensor.device.type == "meta"


@pytest.mark.parametrize("name", POLICIES)
def test_scripts_move_to_any_device(name: str) -> None:
    """Law: all numbers of a TorchScript program go where it is sent."""
    agent = POLICIES[name]()
    graph = trace(agent, output_names(agent))
    with quiet(), torch.no_grad():
        program = torch.jit.load(io.BytesIO(write_script(graph, ExportConfig())[".pt"]))
        assert _written_in(program) == []
        _on_meta(program, graph)


@pytest.mark.parametrize("name", ["sees_discrete", "masked_multi_binary"])
def test_exported_programs_move_to_any_device(name: str) -> None:
    """Law: all numbers of an ExportedProgram go where it is sent."""
    agent = POLICIES[name]()
    graph = trace(agent)
    with quiet(), torch.no_grad():
        program = torch.export.load(io.BytesIO(write_program(graph, ExportConfig())[".pt2"]))
        _on_meta(move_to_device_pass(program, "meta").module(), graph)
