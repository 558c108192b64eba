"""One valid file of every format that kdcli reads: what the corpus harms. A new format is one row in SEEDS."""

from __future__ import annotations

import io
import json
import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as safetensors
from torch import nn

Files = dict[str, bytes]
State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Seed:
    """A valid file, named by its format; `files` are the file `main` and what lies beside it.

    `options` are what kdcli must be told to read it. `sealed` says that the format has a checksum over all that
    matters: then harm is noticed, or it does not matter. `family` names the container: zip, torch, safetensors, ...
    """

    format: str
    family: str
    main: str
    files: Files
    options: tuple[str, ...] = ()
    sealed: bool = True

    @property
    def data(self) -> bytes:
        """The bytes of the main file."""
        return self.files[self.main]

    def with_main(self, data: bytes) -> Files:
        """All files, the main one replaced."""
        return {**self.files, self.main: data}


@dataclass(frozen=True)
class Row:
    """How a seed is made: `make(folder)` gives its files. Of formats much like others one case in `thin` will do."""

    make: Callable[[Path], Files]
    family: str
    main: str
    options: tuple[str, ...] = ()
    sealed: bool = True
    thin: int = 1


def _sb3(name: str, observation: str, action: str, **settings: Any) -> Callable[[Path], Files]:
    """A fresh agent of Stable-Baselines3 with one layer of four units."""

    def make(folder: Path) -> Files:
        from sb3_oracle import ACTIONS, OBSERVATIONS, fresh

        kwargs = {"net_arch": [4], "activation_fn": nn.ReLU, **settings.get("policy_kwargs", {})}
        said = {**settings, "policy_kwargs": kwargs}
        fresh(folder, name, OBSERVATIONS[observation], ACTIONS[action], **said)
        return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}

    return make


def _loaded(source: str) -> Callable[[Path], Files]:
    """An agent file of kdcli, from another seed."""

    def make(folder: Path) -> Files:
        from kdcli.api.load import load

        load(folder.parent / source / "model.zip", folder / "x")
        return {"agent.safetensors": (folder / "x").read_bytes()}

    return make


def _exported(source: str) -> Callable[[Path], Files]:
    """A policy exported by kdcli, from another seed."""

    def make(folder: Path) -> Files:
        from kdcli.cli.console import Console
        from kdcli.cli.main import main

        words = ["export", str(folder.parent / source / "model.zip"), "-o", str(folder / "x.onnx")]
        assert main(words, Console(io.StringIO(), io.StringIO())) == 0
        return {"policy.onnx": (folder / "x.onnx").read_bytes()}

    return make


def _mlp(*widths: int) -> nn.Sequential:
    """Linear, ReLU, Linear, ...; the same weights every time."""
    torch.manual_seed(1)
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _named(**modules: nn.Module | torch.Tensor) -> State:
    """One state dict of several modules, under their names."""
    found: State = {}
    for name, module in modules.items():
        found |= (
            {f"{name}.{k}": t for k, t in module.state_dict().items()}
            if isinstance(module, nn.Module)
            else {name: module}
        )
    return found


def _torch(value: Callable[[], Any], new: bool = True, **beside: bytes) -> Callable[[Path], Files]:
    """A file of torch.save."""

    def make(_: Path) -> Files:
        buffer = io.BytesIO()
        torch.save(value(), buffer, _use_new_zipfile_serialization=new)
        return {"model.pt": buffer.getvalue(), **{name.replace("__", "."): data for name, data in beside.items()}}

    return make


def _cleanrl() -> State:
    return _named(actor_mean=_mlp(3, 4, 1), actor_logstd=torch.zeros(1, 1), critic=_mlp(3, 4, 1))


def _rsl_rl() -> dict[str, Any]:
    state = _named(actor=_mlp(3, 4, 4, 1), critic=_mlp(3, 4, 4, 1), std=torch.ones(1))
    return {
        "model_state_dict": state,
        "optimizer_state_dict": {"state": {}, "param_groups": []},
        "iter": 7,
        "infos": None,
    }


def _skrl() -> dict[str, Any]:
    policy = _named(net_container=_mlp(3, 4, 1), log_std_parameter=torch.zeros(1))
    return {
        "policy": policy,
        "value": _mlp(3, 4, 1).state_dict(),
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3}]},
    }


def _d3rlpy(_: Path) -> Files:
    buffer = io.BytesIO()
    layers = _mlp(3, 4, 1)
    state = {"_encoder._layers.0.weight": layers[0].weight, "_encoder._layers.0.bias": layers[0].bias}
    state |= {"_mu.weight": layers[2].weight, "_mu.bias": layers[2].bias}
    torch.save({"policy": {name: tensor.detach() for name, tensor in state.items()}}, buffer)
    encoder = {"type": "vector", "params": {"hidden_units": [4], "activation": "relu"}}
    described = {"type": "td3", "params": {"actor_encoder_factory": encoder}}
    config = {"observation_shape": [3], "action_size": 1, "config": described}
    saved = {"torch": buffer.getvalue(), "config": json.dumps(config), "version": "2.8.1"}
    return {"model.d3": pickle.dumps(saved)}


def _card(safe: bool) -> Callable[[Path], Files]:
    """Tensors with a card."""
    layers = _mlp(3, 4, 4)
    state = {"net.0.weight": layers[0].weight, "net.0.bias": layers[0].bias, "head.weight": layers[2].weight}
    state = {name: tensor.detach() for name, tensor in {**state, "head.bias": layers[2].bias}.items()}
    card = {
        "trunk": [["linear", 4], ["relu"]],
        "heads": {"head": "logits"},
        "tensors": {name: list(tensor.shape) for name, tensor in state.items()},
        "observation": {"kind": "box", "shape": [3], "dtype": "float32", "low": -1.0, "high": 1.0},
        "action": {"kind": "discrete", "n": 4, "start": 0, "dtype": "int64"},
        "normalizer": {"mean": [0.0, 1.0, 2.0], "var": [1.0, 2.0, 3.0], "clip": 5.0},
        "env": {"id": "Some-v0"},
    }
    beside = json.dumps(card).encode()
    if not safe:
        return _torch(lambda: state, model__json=beside)
    return lambda _: {"model.safetensors": safetensors(state), "model.json": beside}


def _foreign_onnx(_: Path) -> Files:
    """A perceptron as other exporters write it."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    layers = _mlp(3, 4, 1)
    arrays = {
        f"{name}{n}": getattr(layers[2 * n], name).detach().numpy() for n in (0, 1) for name in ("weight", "bias")
    }
    nodes = [
        helper.make_node("Gemm", ["obs", "weight0", "bias0"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "weight1", "bias1"], ["action"], transB=1),
    ]
    ends = [
        [helper.make_tensor_value_info(*end)]
        for end in (("obs", TensorProto.FLOAT, ["n", 3]), ("action", TensorProto.FLOAT, ["n", 1]))
    ]
    graph = helper.make_graph(nodes, "policy", *ends, [numpy_helper.from_array(a, name) for name, a in arrays.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return {"policy.onnx": model.SerializeToString()}


def _script(_: Path) -> Files:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(_mlp(3, 4, 1)), buffer)
    return {"policy.pt": buffer.getvalue()}


def _program(_: Path) -> Files:
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(_mlp(3, 4, 1), (torch.zeros(2, 3),)), buffer)
    return {"policy.pt2": buffer.getvalue()}


_LSTM: dict[str, Any] = {"policy": "MlpLstmPolicy", "policy_kwargs": {"lstm_hidden_size": 4}}
_PENDULUM = ("--env", "Pendulum-v1")
_UNSEEN = (*_PENDULUM, "--activation", "relu", "--obs-stats", "none")
SEEDS = {
    "sb3": Row(_sb3("PPO", "box", "box", normalized=True), "zip", "model.zip"),
    "sb3-dqn": Row(_sb3("DQN", "multidiscrete", "discrete"), "zip", "model.zip", thin=9),
    "sb3-sac": Row(_sb3("SAC", "wide", "box"), "zip", "model.zip", thin=9),
    "sb3-recurrent": Row(_sb3("RecurrentPPO", "box", "discrete", **_LSTM), "zip", "model.zip", thin=9),
    "cleanrl": Row(_torch(_cleanrl), "torch", "model.pt", _UNSEEN),
    "cleanrl-legacy": Row(_torch(_cleanrl, new=False), "legacy", "model.pt", _UNSEEN, sealed=False),
    "rsl_rl": Row(_torch(_rsl_rl), "torch", "model.pt", _UNSEEN, thin=4),
    "skrl": Row(_torch(_skrl), "torch", "model.pt", (*_UNSEEN, "--squash", "clip"), thin=4),
    "d3rlpy": Row(_d3rlpy, "pickle", "model.d3", sealed=False),
    "card-torch": Row(_card(safe=False), "torch", "model.pt", thin=4),
    "card": Row(_card(safe=True), "safetensors", "model.safetensors", sealed=False),
    "onnx_policy": Row(_foreign_onnx, "onnx", "policy.onnx", _PENDULUM, sealed=False),
    "torchscript": Row(_script, "program", "policy.pt"),
    "torch_export": Row(_program, "program", "policy.pt2"),
    "agent": Row(_loaded("sb3"), "safetensors", "agent.safetensors"),
    "onnx": Row(_exported("sb3"), "onnx", "policy.onnx"),
}


def make_all(folder: Path) -> None:
    """Make every seed in a folder of its own name under `folder`; later ones may be made from earlier ones."""
    for name, row in SEEDS.items():
        (folder / name).mkdir()
        files = row.make(folder / name)
        for file in (folder / name).iterdir():
            file.unlink()
        for file_name, data in files.items():
            (folder / name / file_name).write_bytes(data)


def read_all(folder: Path) -> dict[str, Seed]:
    """The seeds that `make_all` made."""
    found = {}
    for name, row in SEEDS.items():
        files = {file.name: file.read_bytes() for file in sorted((folder / name).iterdir())}
        found[name] = Seed(name, row.family, row.main, files, row.options, row.sealed)
    return found
