"""Any ONNX policy as a black box."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from foreign import BOUNDED, VECTOR, Where, observations
from foreign import here as here
from foreign import where as where
from onnx import TensorProto, helper, numpy_helper

from kdcli.agents.onnx.session import OnnxAgent
from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.files import inspect
from kdcli.checkpoints.read import read_any, sniff
from kdcli.errors import RefusedError, UsageError
from kdcli.spec import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Part, box, join_rows

RNG = np.random.default_rng(0)
W, B = RNG.normal(size=(7, 5)).astype(np.float32), RNG.normal(size=5).astype(np.float32)
ROWS = ["batch", 7]
Port = tuple[str, int, list[Any]]


def model(
    inputs: list[Port], outputs: list[Port], nodes: list[onnx.NodeProto], opset: int = 17, **numbers: np.ndarray
) -> onnx.ModelProto:
    """A file of another exporter."""
    ports = [[helper.make_tensor_value_info(*port) for port in found] for found in (inputs, outputs)]
    kept = [numpy_helper.from_array(array, name) for name, array in {"w": W, "b": B, **numbers}.items()]
    graph = helper.make_graph(nodes, "g", ports[0], ports[1], kept)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def gemm(x: str = "x", out: str = "y") -> onnx.NodeProto:
    return helper.make_node("Gemm", [x, "w", "b"], [out])


def plain(out: str = "y", rows: Any = "batch", opset: int = 17) -> onnx.ModelProto:
    """One layer: x (rows, 7) -> out (rows, 5)."""
    ends = [("x", TensorProto.FLOAT, [rows, 7])], [(out, TensorProto.FLOAT, [rows, 5])]
    return model(*ends, [gemm("x", out)], opset)


def written(made: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(made, folder / "policy.onnx")
    assert sniff(folder / "policy.onnx") == "onnx_policy"
    return folder / "policy.onnx"


def opened(made: onnx.ModelProto, folder: Path, **said: Any) -> OnnxAgent:
    agent = read_any(written(made, folder), LoadConfig(**{"env": "Some-v0", **said}))
    assert isinstance(agent, OnnxAgent)
    return agent


def chosen(outputs: np.ndarray, action: Part) -> np.ndarray:
    """What the outputs (B, 5) mean for an env."""
    match action:
        case Discrete(start=start):
            return outputs.argmax(1) + start
        case MultiDiscrete():
            return np.stack([outputs[:, :2].argmax(1), outputs[:, 2:].argmax(1)], 1)
        case MultiBinary():
            return (outputs > 0).astype(np.int8)
        case Box():
            return np.clip(outputs, action.low, action.high)


pytestmark = pytest.mark.usefixtures("here")
SIGNALS: list[tuple[str, Part]] = [
    ("logits", Discrete(5, start=-2)),
    ("q", Discrete(5)),
    ("logits", MultiDiscrete((2, 3))),
    ("logits", MultiBinary(5)),
    ("mean", box((5,), -1.0, 0.5, "float64")),
]


@pytest.mark.parametrize(("signal", "action"), SIGNALS, ids=str)
@pytest.mark.parametrize("rows", ["batch", 1])
@pytest.mark.parametrize("opset", [11, 13, 17, 21])
def test_what_outputs_mean(signal: str, action: Part, rows: Any, opset: int, tmp_path: Path, where: Where) -> None:
    """Law: outputs become the env's actions as the signal says, for any batch, whatever it was made for."""
    where(box((7,), dtype="float64"), action)
    agent = opened(plain(rows=rows, opset=opset), tmp_path, signal=signal)
    obs = observations(VECTOR).astype(np.float64)
    ours = agent.act(obs)
    assert ours.dtype == np.dtype(action.dtype)
    np.testing.assert_allclose(ours, chosen(obs.astype(np.float32) @ W + B, action), atol=1e-5)
    assert agent.n_params == W.size + B.size
    assert agent.state_size == 0


def test_sampled_by_logits(tmp_path: Path, where: Where) -> None:
    """Law: logits are a distribution to sample from; Q-values are not."""
    where(VECTOR, Discrete(5))
    obs, rng = observations(VECTOR), np.random.default_rng
    logits, q = (opened(plain(), tmp_path, signal=signal) for signal in ("logits", "q"))
    assert (logits.act(obs, rng(0)) != logits.act(obs)).any()
    np.testing.assert_array_equal(q.act(obs, rng(0)), q.act(obs))


def test_actions_that_can_be_told(tmp_path: Path, where: Where) -> None:
    """Law: integers in an env of choices are the action, and so is a real output of that name; others are asked for."""
    where(VECTOR, Discrete(5))
    nodes = [gemm(), helper.make_node("ArgMax", ["y"], ["best"], axis=1, keepdims=0)]
    ends = [("x", TensorProto.FLOAT, ROWS)], [("best", TensorProto.INT64, ["batch"])]
    obs = observations(VECTOR)
    np.testing.assert_array_equal(opened(model(*ends, nodes), tmp_path).act(obs), (obs @ W + B).argmax(1))
    np.testing.assert_array_equal(opened(plain("logits"), tmp_path).act(obs), (obs @ W + B).argmax(1))
    for out in ("y", "action"):
        with pytest.raises(UsageError) as raised:
            opened(plain(out), tmp_path)
        assert "--signal" in raised.value.fix
    where(VECTOR, box((5,), -9, 9))
    np.testing.assert_allclose(opened(plain("actions"), tmp_path).act(obs), obs @ W + B, atol=1e-5)


def test_which_output_acts(tmp_path: Path, where: Where) -> None:
    """Law: of several outputs, the one called action, else the one that is named; without, its names are listed."""
    where(VECTOR, Discrete(5))
    nodes = [gemm(), helper.make_node("Neg", ["y"], ["z"])]
    ends = [("x", TensorProto.FLOAT, ROWS)], [(n, TensorProto.FLOAT, ["batch", 5]) for n in ("y", "z")]
    made, obs = model(*ends, nodes), observations(VECTOR)
    with pytest.raises(UsageError, match="which output acts") as raised:
        opened(made, tmp_path, signal="q")
    assert "--output-name" in raised.value.fix
    ours = opened(made, tmp_path, signal="q", output_name="z").act(obs)
    np.testing.assert_array_equal(ours, (obs @ W + B).argmin(1))
    with pytest.raises(UsageError, match="no output 'a'"):
        opened(made, tmp_path, signal="q", output_name="a")


def test_images_and_flat_inputs(tmp_path: Path, where: Where) -> None:
    """Law: an observation gets the shape of its input, channels first where that has them so; others do not fit."""
    where(box((2, 3, 4), 0, 255, "uint8"), Discrete(3))
    weights, obs = RNG.normal(size=(24, 3)).astype(np.float32), RNG.integers(0, 256, (20, 2, 3, 4), dtype=np.uint8)
    weights -= weights.mean(0)  # else one choice is always the best
    out = [("q", TensorProto.FLOAT, ["batch", 3])]
    layer = helper.make_node("Gemm", ["flat", "v", "c"], ["q"])
    flat = model([("flat", TensorProto.FLOAT, ["batch", 24])], out, [layer], v=weights, c=np.zeros(3, np.float32))
    wanted = (obs.reshape(20, 24) @ weights).argmax(1)
    np.testing.assert_array_equal(opened(flat, tmp_path).act(obs), wanted)
    nodes = [helper.make_node("Flatten", ["picture"], ["flat"]), layer]
    first = [("picture", TensorProto.FLOAT, ["batch", 4, 2, 3])]
    made = model(first, out, nodes, v=weights, c=np.zeros(3, np.float32))
    moved = (np.moveaxis(obs, -1, 1).reshape(20, 24) @ weights).argmax(1)
    np.testing.assert_array_equal(opened(made, tmp_path).act(obs), moved)
    where(box((5, 5)), Discrete(3))
    with pytest.raises(UsageError, match="does not take"):
        opened(flat, tmp_path)


def test_named_observations(tmp_path: Path, where: Where) -> None:
    """Law: a Dict is matched by name, in whatever order; a name that is not there is refused."""
    space = Dict({"a": box((3,)), "b": box((4,), dtype="float64")})
    where(space, Discrete(5))
    nodes = [helper.make_node("Concat", ["a", "obs_b"], ["x"], axis=1), gemm("x", "q")]
    ends = [("obs_b", TensorProto.FLOAT, ["batch", 4]), ("a", TensorProto.FLOAT, ["batch", 3])]
    out = [("q", TensorProto.FLOAT, ["batch", 5])]
    flat = observations(VECTOR, 50)
    obs = join_rows(space, {"a": flat[:, :3], "b": flat[:, 3:]})
    np.testing.assert_array_equal(opened(model(ends, out, nodes), tmp_path).act(obs), (flat @ W + B).argmax(1))
    where(Dict({"a": box((3,)), "c": box((4,))}), Discrete(5))
    with pytest.raises(UsageError, match="are not what the env observes"):
        opened(model(ends, out, nodes), tmp_path)


# Names, shape, and how the batch gets to the front and back.
STATES = {
    "torch": ("h_in", "h_out", [1, "batch", 5], (1, 0, 2), (1, 0, 2)),
    "flat": ("state_in", "state_out", ["batch", 5], (0, 1), (0, 1)),
    "next": ("state", "next_state", ["batch", 5], (0, 1), (0, 1)),
    "one row": ("h_in", "h_out", [1, 1, 5], (1, 0, 2), (1, 0, 2)),
    "batch last": ("h_in", "h_out", [1, 5, "batch"], (2, 0, 1), (1, 2, 0)),
}


@pytest.mark.parametrize("kind", STATES)
def test_memory(kind: str, tmp_path: Path, where: Where) -> None:
    """Law: an input that comes back under its name is the state, zeros at first, wherever its batch is."""
    where(VECTOR, box((5,), -1, 1))
    source, target, shape, front, back = STATES[kind]
    rows = 1 if kind == "one row" else "batch"
    nodes = [
        gemm("obs", "y"),
        helper.make_node("Transpose", [source], ["in_front"], perm=front),
        helper.make_node("Reshape", ["in_front", "two"], ["before"]),
        helper.make_node("Add", ["y", "before"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["mean"]),
        helper.make_node("Reshape", ["mean", "own"], ["after"]),
        helper.make_node("Transpose", ["after"], [target], perm=back),
    ]
    ends = [("obs", TensorProto.FLOAT, [rows, 7]), (source, TensorProto.FLOAT, shape)]
    out = [("mean", TensorProto.FLOAT, [rows, 5]), (target, TensorProto.FLOAT, shape)]
    own = np.array([-1, 1, 5] if len(shape) == 3 else [-1, 5], np.int64)
    agent = opened(model(ends, out, nodes, two=np.array([-1, 5], np.int64), own=own), tmp_path)
    state, wanted = np.zeros((4, 5), np.float32), np.zeros((4, 5), np.float32)
    assert agent.state_size == 5
    for obs in observations(VECTOR, 40).reshape(10, 4, 7):
        wanted = np.tanh(obs @ W + B + wanted)
        actions, state = agent.step(obs, state)
        np.testing.assert_allclose(actions, wanted, atol=1e-5)
        np.testing.assert_allclose(state, wanted, atol=1e-5)


def test_one_row_at_a_time(tmp_path: Path, where: Where) -> None:
    """Law: a file that can only take one observation gets each alone, in a batch of any size."""
    where(box((7, 1)), Discrete(5))
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["flat"]), gemm("flat", "q")]
    ends = [("x", TensorProto.FLOAT, [1, 7, 1])], [("q", TensorProto.FLOAT, [1, 5])]
    agent = opened(model(*ends, nodes, shape=np.array([1, 7], np.int64)), tmp_path)
    obs = observations(VECTOR, 50)
    np.testing.assert_array_equal(agent.act(obs[:, :, None]), (obs @ W + B).argmax(1))
    np.testing.assert_array_equal(agent.act(obs[:1, :, None]), (obs[:1] @ W + B).argmax(1))


def external(made: onnx.ModelProto) -> onnx.ModelProto:
    weight = made.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="/etc/passwd")
    return made


def custom(made: onnx.ModelProto) -> onnx.ModelProto:
    made.graph.node[0].domain = "my.company"
    made.opset_import.add(domain="my.company", version=1)
    return made


def hidden(change: Callable[[onnx.ModelProto], onnx.ModelProto]) -> Callable[[onnx.ModelProto], onnx.ModelProto]:
    """The change inside a branch of an If."""

    def inside(made: onnx.ModelProto) -> onnx.ModelProto:
        inner = change(plain()).graph
        made.graph.node.append(helper.make_node("If", ["c"], ["i"], then_branch=inner, else_branch=inner))
        return made

    return inside


@pytest.mark.parametrize("rows", ["batch", 1])
def test_it_is_tried_first(rows: Any, tmp_path: Path, where: Where, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: before any of it is run here, the file is tried in another process."""
    from kdcli.agents.onnx import session as runtime
    from kdcli.checkpoints.blackbox import onnx_policy as foreign_onnx

    where(VECTOR, Discrete(5))

    def refuse(data: bytes, source: str) -> None:
        raise RefusedError(f"{source} wants too much")

    def run(*_: Any) -> None:
        raise AssertionError("it was run")

    for module in (runtime, foreign_onnx):
        monkeypatch.setattr(module, "try_out", refuse)
        monkeypatch.setattr(module, "start", run)
    with pytest.raises(RefusedError, match="wants too much"):
        opened(plain(rows=rows), tmp_path, signal="q")


@pytest.mark.parametrize("text", [b"Gemm", b"batch", b"w", b"g"])
def test_texts_that_are_none(text: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Law: a name that is not UTF-8 is refused before onnxruntime, which would print of it, sees it."""
    whole = plain().SerializeToString()
    (tmp_path / "policy.onnx").write_bytes(whole.replace(text, b"\xba" + text[1:], 1))
    with pytest.raises(RefusedError):
        read_any(tmp_path / "policy.onnx", LoadConfig(env="Some-v0", signal="q"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("change", [external, custom, hidden(external), hidden(custom)])
def test_what_is_not_run(change: Callable[[onnx.ModelProto], onnx.ModelProto], tmp_path: Path, where: Where) -> None:
    """Law: weights in other files and operations of other makers are refused before anything is run, however deep."""
    where(VECTOR, Discrete(5))
    (tmp_path / "policy.onnx").write_bytes(change(plain()).SerializeToString())
    with pytest.raises(RefusedError, match=r"keeps weights in other files|needs operations of my\.company"):
        read_any(tmp_path / "policy.onnx", LoadConfig(env="Some-v0", signal="q"))


def test_what_does_not_fit(tmp_path: Path, where: Where) -> None:
    """Law: an old opset, a fixed batch above one, a wrong width or kind of output is refused by name."""
    where(VECTOR, Discrete(5))
    nothing = model([], [("y", TensorProto.FLOAT, ["batch", 5])], [helper.make_node("Identity", ["b"], ["y"])])
    for made in (plain(opset=10), plain(rows=4), nothing):
        with pytest.raises(RefusedError):
            opened(made, tmp_path, signal="q")
    for action, signal in ((Discrete(4), "q"), (BOUNDED, "mean"), (box((5,)), "logits"), (Discrete(5), "mean")):
        where(VECTOR, action)
        with pytest.raises(UsageError, match="gives no"):
            opened(plain(), tmp_path, signal=signal)


def test_it_is_shown_without_an_env(tmp_path: Path, where: Where) -> None:
    """Law: inspect tells inputs, outputs and state of a foreign file that nothing is known about."""
    found = inspect(written(plain(), tmp_path))
    assert found["program"]["inputs"] == ["x float (?, 7)"]
    assert found["program"]["outputs"] == ["y float (?, 5)"]
    assert found["actor_params"] == W.size + B.size
    assert found["observation"] is None
    where(VECTOR, Discrete(5))
    told = inspect(tmp_path / "policy.onnx", LoadConfig(env="Some-v0", signal="q"))
    assert (told["observation"], told["action"], told["network"]) == ("Box(7,) float32", "Discrete(5)", "a black box")
