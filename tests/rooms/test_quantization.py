"""Quantization: weights on few levels, activations on grids, trained as they will be, and exported as such."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from sample_policies import CONVOLUTIONS, POLICIES, observations

from kdcli.agents import store
from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.folding import fold
from kdcli.agents.observation import Normalizer, Preprocess
from kdcli.agents.packed_weights import held
from kdcli.agents.policy import Policy
from kdcli.agents.states import States
from kdcli.errors import RefusedError, UsageError
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.onnx.writer import WRITERS
from kdcli.exporters.step import Exported, convert
from kdcli.graph.count import count
from kdcli.graph.operations import Graph
from kdcli.graph.trace import trace
from kdcli.networks.activation_grid import DynamicQuantize, Quantize, on_grid
from kdcli.networks.stack import Branch, Stack
from kdcli.quantization import CALIBRATIONS, SCHEMES
from kdcli.quantization.calibration import parse_calibration
from kdcli.quantization.plan import Plan
from kdcli.quantization.qat import Grid, between, prepare, settle
from kdcli.quantization.quantize import quantize
from kdcli.quantization.rounding import straight_through
from kdcli.quantization.schemes import parse_scheme
from kdcli.spec import box

every_scheme = pytest.mark.parametrize(
    "scheme", [*SCHEMES.names(), "int8:rows=no,fit=max", "int4:zero=yes", "kmeans:5"]
)
every_policy = pytest.mark.parametrize("name", [n for n in POLICIES if not n.startswith("quantized")])
WEIGHT = np.random.default_rng(0).standard_t(4, (24, 40)).astype(np.float32)


@every_scheme
@pytest.mark.parametrize("shape", [(24, 40), (6, 5, 4, 8), (1, 3)])
def test_weights_lie_where_they_are_said_to(scheme: str, shape: tuple[int, ...]) -> None:
    """Law: what training computes with is what is packed, bit for bit, and takes no more bits than promised."""
    found = parse_scheme(scheme)
    weight = torch.from_numpy(WEIGHT.reshape(-1)[: int(np.prod(shape))].reshape(shape).copy())
    lattice = found.fit(weight.numpy())
    with torch.no_grad():
        on_levels, packed = lattice(weight), lattice.packed(weight)
    assert np.array_equal(packed.decoded(), on_levels.numpy())
    assert packed.bits <= found.bits
    assert np.array_equal(found.pack(weight.numpy()).decoded(), packed.decoded())


@every_scheme
def test_weights_on_levels_stay(scheme: str) -> None:
    """Law: what lies on the levels does not move: on the same lattice, twice is once."""
    lattice = parse_scheme(scheme).fit(WEIGHT)
    with torch.no_grad():
        once = lattice(torch.from_numpy(WEIGHT.copy()))
        assert torch.allclose(lattice(once), once, rtol=1e-6)


def squared(scheme: str) -> float:
    """The mean squared error of weights with heavy tails."""
    return float(np.square(parse_scheme(scheme).pack(WEIGHT).decoded() - WEIGHT).mean())


def test_more_is_never_worse() -> None:
    """Law: more bits, more levels, a scale for each row, and the best scale instead of the largest: less error."""
    for better, worse in (
        ("int16", "int8"),
        ("int8", "int4"),
        ("int4", "int3"),
        ("int3", "int2"),
        ("kmeans:16", "kmeans:8"),
        ("kmeans:16", "int4:rows=no"),
        ("log:4", "log:3"),
        ("int4", "int4:rows=no"),
        ("int4", "int4:fit=max"),
        ("fp16", "bf16"),
    ):
        assert squared(better) < squared(worse), (better, worse)


def test_levels_of_log_are_powers_of_two() -> None:
    """Law: a product with such a weight is a shift."""
    levels = parse_scheme("log:4").pack(WEIGHT).levels
    assert levels is not None
    assert len(levels) == 15
    assert np.array_equal(np.log2(np.abs(levels[levels != 0])) % 1, np.zeros(14))


def test_kmeans_finds_the_clusters() -> None:
    """Law: weights that lie on n levels are represented exactly by n."""
    levels = np.array([-2.0, -0.5, 0.0, 0.1, 3.0], np.float32)
    weight = np.random.default_rng(0).choice(levels, (20, 30))
    assert np.allclose(parse_scheme("kmeans:5").pack(weight).decoded(), weight, atol=1e-7)


@pytest.mark.parametrize("text", ["int5", "int8:bits=3", "int8:fit=best", "kmeans:1", "kmeans:x", "log:9", "fp16:2"])
def test_nonsense_is_refused(text: str) -> None:
    """Law: a scheme that cannot be is an error that says what can."""
    with pytest.raises(UsageError):
        parse_scheme(text)


def test_the_gradient_goes_straight_through() -> None:
    """Law: inside the range the gradient of a rounded number is that of the number, outside it is 0; scales learn."""
    x = torch.tensor([0.3, -0.7, 5.0, -9.0], requires_grad=True)
    scale, zero = torch.tensor(0.25, requires_grad=True), torch.tensor(0.0)
    y = straight_through(x, scale, zero, -8, 7)
    assert torch.equal(y.detach(), on_grid(x.detach(), scale.detach(), zero, -8, 7))
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 1.0, 0.0, 0.0]
    assert scale.grad is not None
    assert scale.grad.item() == pytest.approx((1 - 1.2) + (-3 + 2.8) + 7 - 8)


@every_scheme
def test_levels_are_learned_with_the_weights(scheme: str) -> None:
    """Law: what is trained as it will be quantized comes nearer to what it should do, here with few bits."""
    agent = POLICIES["tanh"]()
    obs = observations(agent, 256)
    features = agent.preprocess(obs)
    wanted = agent.policy.outputs(features).detach()
    fake = prepare(agent, Plan.parse(scheme, 3, 4), States(obs))
    parameters = [p for p in fake.policy.parameters() if p.requires_grad]
    adam, losses = torch.optim.Adam(parameters, 3e-3), []
    for _ in range(60):
        loss = (fake.policy.outputs(features) - wanted).square().mean()
        losses.append(loss.item())
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert np.mean(losses[-5:]) < 0.9 * losses[0]


PLANS = {
    "weights": ("int4", 0, 0),
    "bytes": ("int8", 8, 8),
    "wide": ("int8", 8, 16),
    "few": ("kmeans:4", 3, 4),
    "dynamic": ("int8", 8, 8, "dynamic"),
}


@every_policy
@pytest.mark.parametrize("plan", ["weights", "wide", "dynamic"])
def test_any_agent_is_quantized(name: str, plan: str) -> None:
    """Law: every matrix is packed, every layer's product reads a grid, the given agent stays as it was, and acts."""
    agent = POLICIES[name]()
    obs = observations(agent, 64)
    before = {key: tensor.clone() for key, tensor in agent.policy.state_dict().items()}
    done = quantize(agent, Plan.parse(*PLANS[plan]), States(obs))
    assert all(torch.equal(tensor, before[key]) for key, tensor in agent.policy.state_dict().items())
    graph = trace(done)
    products = [op for op in graph.ops if op.kind in ("conv2d", "gemm", "gru_cell", "lstm_cell")]
    assert all(key in op.packed for op in products for key, w in op.weights.items() if w.ndim > 1)
    on_grids = {"weights": (), "wide": ("conv2d", "gemm", "gru_cell", "lstm_cell"), "dynamic": ("gemm",)}[plan]
    if not {"attention"} & {op.kind for op in graph.ops}:
        assert all(on_a_grid(graph, op.inputs[0].name) for op in products if op.kind in on_grids)
    assert done.n_params == agent.n_params


def on_a_grid(graph: Graph, name: str) -> bool:
    """Whether a value comes from grids, moved at most."""
    op = next((op for op in graph.ops if any(port.name == name for port in op.outputs)), None)
    if op is None or op.kind not in ("concat", "flatten", "max_pool2d"):
        return op is not None and op.kind in ("quantize", "dynamic_quantize")
    return all(on_a_grid(graph, port.name) for port in op.inputs)


@pytest.mark.parametrize("name", ["tanh", "stack_image", "gru", "dict_normalized"])
@pytest.mark.parametrize("plan", PLANS)
def test_what_was_trained_is_what_acts(name: str, plan: str, tmp_path: Path) -> None:
    """Law: settled, saved and read again, an agent says what it said in training, up to the rounding of biases."""
    agent = POLICIES[name]()
    obs = observations(agent, 64)
    fake = prepare(agent, Plan.parse(*PLANS[plan]), States(obs))
    done = settle(fake)
    read = store.load(store.save(tmp_path / "a.safetensors", done, {}))
    state = np.zeros((64, agent.state_size), np.float32) if agent.state_size else None
    ours, theirs, again = (a.heads(obs, state).scores() for a in (fake, done, read))
    assert torch.equal(theirs, again)
    assert held(read.policy).keys() == held(done.policy).keys() != set()
    if plan in ("weights", "few", "dynamic"):
        assert torch.equal(ours, theirs)
    else:
        # A bias that moves by a hundredth of a step moves few activations to the next code.
        assert (ours - theirs).abs().mean() < 1e-3


def test_what_is_quantized_is_not_again() -> None:
    """Law: levels are fitted to floats, never to levels."""
    agent = POLICIES["tanh"]()
    states = States(observations(agent, 64))
    with pytest.raises(UsageError, match="quantized already"):
        quantize(quantize(agent, Plan.parse("int8"), states), Plan.parse("int4"), states)


def test_a_normalizer_stays_apart() -> None:
    """Law: a normalizer folded into a layer before that is quantized by rows costs precision; so it never is."""
    rng = np.random.default_rng(0)
    scale = 10.0 ** rng.uniform(-2, 1, 5)
    sees = Preprocess(box((5,)), Normalizer(np.zeros(5), scale, np.inf))
    agent = replace(POLICIES["tanh"](), preprocess=sees)
    obs = (rng.normal(size=(256, 5)) * scale).astype(np.float32)
    plan, states, wanted = Plan.parse("int4"), States(obs), agent.act(obs)
    apart, folded = (np.abs(quantize(a, plan, states).act(obs) - wanted).mean() for a in (agent, fold(agent)))
    assert 2 * apart < folded
    made = convert(quantize(agent, plan, states), states, ExportConfig())
    assert made.record["normalizer"] == "inside"


# Ranges.


@pytest.mark.parametrize("name", [name for name in CALIBRATIONS.names() if name != "dynamic"])
@pytest.mark.parametrize("shape", [(4000,), (4000, 3)])
def test_ranges_lie_within_what_was_seen(name: str, shape: tuple[int, ...]) -> None:
    """Law: a range is no wider than what was seen, and as many as there are elements."""
    seen = np.random.default_rng(0).normal(1.0, 2.0, shape)
    low, high = parse_calibration(name)(seen, 8)
    assert low.shape == high.shape == shape[1:]
    assert (low >= seen.min(0) - 1e-9).all()
    assert (high <= seen.max(0) + 1e-2).all()
    assert (low < high).all()


def test_outliers_are_cut() -> None:
    """Law: one number far out sets the range of minmax, and not that of the others."""
    seen = np.append(np.random.default_rng(0).normal(size=20_000), 50.0)
    assert parse_calibration("minmax")(seen, 8)[1] == 50.0
    assert parse_calibration("percentile:99.9")(seen, 8)[1] < 5.0
    assert parse_calibration("entropy")(seen, 4)[1] < 25.0
    behind_relu = np.append(np.maximum(seen[:-1], 0), np.zeros(100_000))
    assert parse_calibration("entropy")(behind_relu, 8)[1] > 2.5


def test_observations_are_never_cut() -> None:
    """Law: however activations are calibrated, all that was observed lies within the grid of the observations."""
    agent = POLICIES["tanh"]()
    obs = np.append(observations(agent, 2000), np.full((1, 5), 60.0, np.float32), 0)
    wide, narrow = (
        trace(quantize(agent, Plan.parse("int8", 8, 8, how), States(obs))).ops for how in ("minmax", "percentile:90")
    )
    scales = [[op.weights["scale"] for op in ops if op.kind == "quantize"] for ops in (wide, narrow)]
    assert scales[0][0] == scales[1][0] == pytest.approx(60.0 / 127, rel=0.5)
    assert scales[1][1] < scales[0][1]


@pytest.mark.parametrize("first", [0, -128])
@pytest.mark.parametrize(("low", "high"), [(0.0, 3.0), (-1.0, 1.0), (-2.0, 0.0), (-0.2, 5.0), (1.0, 2.0), (0.0, 0.0)])
def test_grids_hold_their_range_and_zero(first: int, low: float, high: float) -> None:
    """Law: both ends of a range and 0 lie on its grid, up to half a step; 0 exactly."""
    scale, zero = between(np.asarray(low), np.asarray(high), first, first + 255)
    grid = Grid(scale, zero, first, first + 255).settled()
    found = grid(torch.tensor([low, high, 0.0]))
    assert found[2] == 0.0
    assert (found - torch.tensor([low, high, 0.0])).abs().max() <= 0.51 * float(scale)


# Exports.


def _image() -> Agent:
    """Convolutions with nothing but ReLUs between."""
    layers = [layer if layer[0] != "elu" else ("relu", {}) for layer in CONVOLUTIONS]
    made = POLICIES["stack_image"]()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Stack([Branch(0, (2, 9, 8), tuple(layers))], [("linear", {"out": 6}), ("relu", {})], 4)
    return replace(made, policy=Policy(network, made.policy.rule, "logits").eval())


def exported(name: str, scheme: str, activations: int, inputs: int, opset: int = 17) -> tuple[Agent, Exported]:
    """A quantized sample policy and its ONNX file."""
    agent = _image() if name == "image" else POLICIES[name]()
    states = States(observations(agent, 128))
    done = quantize(agent, Plan.parse(scheme, activations, inputs), states)
    return done, convert(done, states, ExportConfig(opset=opset))


def optimized(data: bytes, path: Path) -> Counter[str]:
    """The operations that onnxruntime makes of a file."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 4
    onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.parametrize(("name", "products"), [("net_relu", 3), ("tanh", 3), ("image", 4), ("stack_image", 2)])
def test_products_of_bytes_are_in_whole_numbers(name: str, products: int, tmp_path: Path) -> None:
    """Law: with weights, activations and observations of 8 bits, onnxruntime computes products in integers; where it
    cannot (a convolution before an ELU), floats are made of the codes once, never at each call.
    """
    found = optimized(exported(name, "int8", 8, 8)[1].data, tmp_path / "o.onnx")
    assert found["QGemm"] + found["QLinearConv"] == products
    assert not found["DequantizeLinear"]
    assert not (name == "image" and {"Gemm", "FusedGemm", "Conv", "FusedConv"} & found.keys())


@pytest.mark.parametrize("name", ["net_relu", "tanh", "stack_image", "dict_normalized", "masked_discrete", "atoms"])
@pytest.mark.parametrize(("scheme", "opset"), [("int8", 13), ("int8:zero=yes", 18), ("int4", 18)])
def test_dynamic_products_are_in_whole_numbers(name: str, scheme: str, opset: int) -> None:
    """Law: behind a dynamic grid onnxruntime adds up bytes; who else is in the batch changes nothing; what the file
    holds is counted as in the agent.
    """
    agent = POLICIES[name]()
    states = States(observations(agent, 96))
    done = quantize(agent, Plan.parse(scheme, 8, 8, "dynamic"), states)
    made = convert(done, states, ExportConfig(opset=opset))
    kinds = Counter(node.op_type for node in onnx.load_model_from_string(made.data).graph.node)
    assert kinds["MatMulInteger"] == sum(op.kind == "gemm" for op in trace(done).ops)
    assert not kinds["Gemm"]
    obs = states.observations
    alone = np.concatenate([made.agent.act(obs[i : i + 1]) for i in range(8)])
    assert np.array_equal(alone, made.agent.act(obs)[:8])
    counted = count(trace(done))
    assert (made.agent.n_params, made.agent.n_constants) == (counted.n_params, counted.n_constants)
    assert made.agent.multiply_adds == counted.multiply_adds


def test_dynamic_grids_fit_each_sample() -> None:
    """Law: a sample's largest number stays as it is, however large others are; all zeros stay zeros."""
    x = torch.tensor([[0.5, -2.0, 0.1], [1e3, 5e3, 0.0], [0.0, 0.0, 0.0]])
    y = DynamicQuantize(0, 255, 128)(x)
    assert torch.allclose(y.abs().amax(1), x.abs().amax(1), rtol=1e-6)
    assert torch.equal(y[0], DynamicQuantize(0, 255, 128)(x[:1])[0])
    assert torch.equal(y[2], x[2])


@pytest.mark.parametrize("turned", [False, True])
def test_bytes_of_an_image_are_its_codes(turned: bool, tmp_path: Path) -> None:
    """Law: an image whose grid is that of its bytes is never made floats; all 256 of them act alike."""
    agent = _image()
    if turned:
        sees = Preprocess(box((9, 8, 2), 0, 255, "uint8"), image=True, channels_last=True)
        agent = replace(agent, preprocess=sees)
    obs = observations(agent, 128)
    obs[:2] = np.array([0, 255], np.uint8).reshape(2, 1, 1, 1)
    done = quantize(agent, Plan.parse("int8", 8, 8), States(obs))
    made = convert(done, States(obs), ExportConfig())
    found = optimized(made.data, tmp_path / "o.onnx")
    assert not {"Cast", "Div", "QuantizeLinear", "DequantizeLinear", "Conv", "FusedConv"} & found.keys()
    assert made.agent.multiply_adds == convert(agent, States(obs), ExportConfig()).agent.multiply_adds
    assert made.agent.n_params == agent.n_params


@pytest.mark.parametrize("scheme", ["int8", "int4", "int2", "kmeans:16", "kmeans:4", "log:4", "fp16", "bf16", "int16"])
@pytest.mark.parametrize("opset", [13, 17, 21])
def test_packed_weights_cost_no_time(scheme: str, opset: int, tmp_path: Path) -> None:
    """Law: weights alone on few levels are floats again once onnxruntime has loaded them; the file has the codes."""
    done, made = exported("net_relu", scheme, 0, 0, opset)
    plain = convert(POLICIES["net_relu"](), None, ExportConfig(opset=opset, states=16)).data
    again = optimized(made.data, tmp_path / "o.onnx")
    assert again == optimized(plain, tmp_path / "p.onnx")
    codes = sum(packed.n_bytes for packed in held(done.policy).values())
    stored = [t for t in onnx.load_model_from_string(made.data).graph.initializer if not t.name.startswith("codes_of")]
    weights = sum(len(t.SerializeToString()) for t in stored if ".weight" in t.name)
    assert weights < codes + 260 + len(stored) * 30  # names, and the zeros that codes are counted from


ALIKE = (
    "gru",
    "lstm_value",
    "dict_normalized",
    "masked_discrete",
    "atoms",
    "sees_image",
    "stack_rows",
    "stack_history",
)


@pytest.mark.parametrize("name", ALIKE)
@pytest.mark.parametrize("form", ["onnx", "numpy", "torchscript", "c"])
@pytest.mark.parametrize("plan", [("kmeans:8", 4, 16), ("int8", 8, 8, "dynamic")])
def test_every_format_acts_alike(name: str, form: str, plan: tuple[Any, ...]) -> None:
    """Law: grids and packed weights mean the same in every format; `convert` compares, and refuses what differs."""
    agent = POLICIES[name]()
    states = States(observations(agent, 64))
    done = quantize(agent, Plan.parse(*plan), states)
    made = convert(done, states, ExportConfig(format=form))
    assert made.parity.ties <= 6


@pytest.mark.parametrize(("kind", "other"), [("tanh", "relu"), ("quantize", "identity")])
def test_a_wrong_file_is_refused_still(kind: str, other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: only states on an edge between two codes are passed over; a writer's mistake is not."""
    monkeypatch.setitem(WRITERS, kind, WRITERS[other])  # type: ignore[misc]
    with pytest.raises(RefusedError, match="does not act like the agent"):
        exported("tanh", "int4", 4, 4)


def test_a_rule_for_packed_actors_only() -> None:
    """Law: a critic does not act, and is left out of what is quantized."""
    agent = POLICIES["value"]()
    done = quantize(agent, Plan.parse("int8"), States(observations(agent, 64)))
    assert done.policy.value is None
    assert isinstance(done.policy.rule, ActionRule)


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_the_grid_of_an_image_is_known(bits: int) -> None:
    """Law: it goes from black to white, however dark the states were that it was calibrated on."""
    agent = _image()
    done = quantize(agent, Plan.parse("int8", 8, bits), States(observations(agent, 64) // 3))
    place = next(module for module in done.policy.modules() if isinstance(module, Quantize))
    assert float(place.scale) == pytest.approx(1.0 / (2**bits - 1), rel=1e-6)
    assert float(place.zero) == place.low
