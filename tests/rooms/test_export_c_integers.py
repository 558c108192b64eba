"""A quantized agent in C computes in integers, and what it computes is what the agent's grids define."""

from __future__ import annotations

import re
import subprocess
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path

import needs
import numpy as np
import pytest
import torch
from on_grids import on_grids, rounded
from sample_policies import observations
from test_export_c import build, save

from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.observation import Preprocess
from kdcli.agents.policy import Policy
from kdcli.agents.states import States
from kdcli.checkpoints.read import find_file, read
from kdcli.errors import RefusedError
from kdcli.exporters.c import runner, write
from kdcli.exporters.c.files import SOURCE
from kdcli.exporters.c.fixed import INT32, RISING, rescale, steps
from kdcli.exporters.c.lower import lower
from kdcli.exporters.c.matmul import Clamped, Decoded, Scored, Stepped
from kdcli.exporters.c.rows import rows
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.parity import check
from kdcli.exporters.quant_step import grid_step
from kdcli.exporters.states import played
from kdcli.exporters.step import convert
from kdcli.graph.graph_builder import GraphBuilder
from kdcli.graph.operations import Graph, Op, Port
from kdcli.graph.trace import trace
from kdcli.networks.activation_grid import Quantize
from kdcli.networks.activations import ACTIVATIONS
from kdcli.networks.layers import LayerSpec
from kdcli.networks.mlp import MLP
from kdcli.networks.packed_weights import Packed
from kdcli.networks.stack import Branch, Stack
from kdcli.spec import Discrete, box, feed

pytestmark = needs.c_compiler
SAMPLES = Path(__file__).parents[2] / "sample_checkpoints" / "ppo"
PLAIN = ExportConfig()


@cache
def real_play(name: str) -> tuple[Agent, np.ndarray]:
    """A teacher and 1,000 states of its own play."""
    made = read(find_file(SAMPLES / name))
    return made, played(made, 1000, 0).observations


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("bits", [8, 4, 3, 2])
@pytest.mark.parametrize("name", ["CartPole-v1_1", "LunarLander-v3_1"])
def test_choices_are_the_agents(name: str, bits: int, each: bool) -> None:
    """In 1,000 states of real play, integers choose what the quantized agent chooses."""
    teacher, obs = real_play(name)
    made = on_grids(teacher, obs, bits, each=each)
    found = convert(made, States(obs, "rollout"), ExportConfig(format="c"))
    assert found.parity.ties == 0


@pytest.mark.parametrize("bits", [8, 4])
def test_continuous_actions_are_the_agents(bits: int) -> None:
    """Of 1,000 states of HalfCheetah, 99 % have the very actions to 1e-5, and none is four steps of a grid away."""
    teacher, obs = real_play("HalfCheetah-v5_1")
    made = on_grids(teacher, obs, bits)
    found = convert(made, States(obs, "rollout"), ExportConfig(format="c"))
    assert found.parity.tolerance < 0.01
    run = runner(found.files)
    gap = np.abs(run(feed(made.observation, obs))["action"] - made.act(obs)).max(1)
    assert (gap > 1e-5).mean() < 0.01


@torch.inference_mode()
def exact(made: Agent, obs: np.ndarray) -> np.ndarray:
    """The agent's outputs in float64."""
    return deepcopy(made.policy).double().outputs(made.preprocess(obs).double()).numpy()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_codes_are_those_of_exact_arithmetic(activation: str) -> None:
    """Whatever the activation: the outputs are those of float64 to 1e-5 in all states but a few in ten thousand."""
    torch.manual_seed(0)
    policy = Policy(MLP(5, (24, 24), 3, activation), ActionRule(box((3,), -9.0, 9.0)), "mean")
    floats = Agent(Preprocess(box((5,), -5.0, 5.0)), policy.eval())
    obs = np.random.default_rng(5).normal(size=(2000, 5)).astype(np.float32)
    made = on_grids(floats, obs)
    run = runner(write(trace(made, ("action", "mean")), PLAIN, "policy"))
    gap = np.abs(run(feed(made.observation, obs))["mean"] - exact(made, obs)).max(1)
    assert (gap > 1e-5).mean() <= 5e-4


def test_between_scaling_and_decoding_are_integers() -> None:
    """Of a discrete policy on grids, no float is left behind the codes of its features."""
    teacher, obs = real_play("LunarLander-v3_1")
    source = write(trace(on_grids(teacher, obs)), PLAIN, "policy")[SOURCE].decode()
    body = source[source.index("void policy_run") :]
    assert "float" in body
    behind = body[body.index("dot_") :]
    assert not re.search(r"float|double|\d\.\d", behind)
    assert "static const float" not in source


def image_agent(rule: ActionRule, raw: bool) -> Agent:
    """A small CNN on grids over bytes, its weights in 8 bits or on tables; `raw`: a byte is its own code."""
    layers: list[LayerSpec] = [
        ("quantize", {"low": 0, "high": 255}),
        *(("conv2d", {"out": 5, "kernel": [3, 2], "stride": [2, 1], "padding": 1}), ("relu", {})),
        ("quantize", {"low": 0, "high": 255}),
        *(("conv2d", {"out": 4, "kernel": 2}), ("tanh", {}), ("quantize", {"low": 0, "high": 255})),
        ("flatten", {}),
    ]
    torch.manual_seed(1)
    sees = Preprocess(box((9, 8, 2), 0, 255, "uint8"), image=True, channels_last=True)
    trunk = (("linear", {"out": 9}), ("elu", {}), ("quantize", {"low": -8, "high": 247}))
    stack = Stack([Branch(0, (2, 9, 8), layers)], trunk, 4)
    made = Agent(sees, Policy(stack, rule, "logits").eval().requires_grad_(False))
    x = sees(observations(made, 64, seed=0)).reshape(-1, 2, 9, 8)
    for module in (*stack.branches[0], *stack.trunk):  # type: ignore[misc]
        if isinstance(module, Quantize):
            low, high = min(float(x.min()), 0.0), max(float(x.max()), 1e-3)
            module.scale = torch.tensor((high - low) / 255 if raw or low < 0 else high / 200)
            module.zero = torch.tensor(float(round(module.low - low / float(module.scale))))
        x = module(x)
    return made.packed(rounded(made, 8))


@pytest.mark.parametrize("raw", [True, False])
def test_images_are_the_agents(raw: bool) -> None:
    """Convolutions over bytes, with padding and strides, choose what the agent chooses; bytes stay where they are."""
    made = image_agent(ActionRule(Discrete(4)), raw)
    obs = observations(made, 400, seed=2)
    graph = trace(made)
    found = runner(write(graph, PLAIN, "policy"))(feed(made.observation, obs))
    assert np.array_equal(found["action"], made.act(obs))
    kinds = [step.kind for step in lower(graph)]
    assert kinds.count("product") == 4
    assert all(step.x.dtype != "float32" for step in lower(graph) if step.kind == "product")
    assert ("code_table" in kinds) is not raw


def forms(weight: np.ndarray) -> dict[str, Packed]:
    """The same weights packed in many ways."""
    rng, found = np.random.default_rng(0), {}
    for bits in range(2, 17):
        low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        scale = np.float32(np.abs(weight).max() / (high - 0.5))
        for kind, zero in (("", None), ("_zero", np.asarray(high // 3, np.int32))):
            codes = np.clip(np.round(weight / scale) + (0 if zero is None else zero), low, high).astype(np.int32)
            found[f"linear{bits}{kind}"] = Packed(codes, bits, scale=np.asarray(scale), zero=zero)
        each = (np.abs(weight).max(1) / (high - 0.5)).astype(np.float32)
        zeros = rng.integers(low, high, len(weight)).astype(np.int32)
        codes = np.clip(np.round(weight / each[:, None]) + zeros[:, None], low, high).astype(np.int32)
        found[f"rows{bits}"] = Packed(codes, bits, scale=each, zero=zeros)
        if bits <= 9:
            levels = np.sort(rng.normal(size=min(1 << bits, 300))).astype(np.float32)
            found[f"table{bits}"] = Packed(rng.integers(0, len(levels), weight.shape), bits, levels=levels)
    return found


WEIGHT = np.random.default_rng(1).normal(size=(7, 13)).astype(np.float32)


@pytest.mark.parametrize("grid", ["shared", "each", "none"])
def test_every_packing_is_read(grid: str) -> None:
    """Weights in 2 to 16 bits, with and without a zero, in rows or on tables, for whole and for real numbers."""
    builder, x = GraphBuilder(), Port("x", (13,))
    rng = np.random.default_rng(2)
    scale = rng.uniform(0.005, 0.05, 13) if grid == "each" else 0.03
    wide = {"scale": np.asarray(scale, np.float32), "zero": np.asarray(np.zeros_like(scale) + 3, np.float32)}
    outputs, packings = {}, forms(WEIGHT)
    y = x if grid == "none" else builder.add("quantize", x, low=-128, high=127, **wide)
    for name, packed in packings.items():
        out = Port(name, (7,))
        weights = {"weight": packed.decoded(), "bias": np.arange(7, dtype=np.float32) / 8}
        builder.ops.append(Op("gemm", (y,), (out,), {}, weights, {"weight": packed}))
        outputs[name] = out
    graph = Graph((x,), builder.graph((x,), outputs).ops, tuple(outputs.values()))
    given = rng.normal(size=(50, 13)).astype(np.float32)
    found = runner(write(graph, PLAIN, "policy"))({"x": given})
    read_ = given.astype(np.float64)
    if grid != "none":
        codes = np.clip(np.round(given / wide["scale"]) + 3, -128, 127) - 3
        read_ = codes.astype(np.float64) * wide["scale"]
    for name, packed in packings.items():
        wanted = read_ @ packed.decoded().astype(np.float64).T + np.arange(7) / 8
        np.testing.assert_allclose(
            found[name], wanted, rtol=1e-5, atol=1e-5 * np.abs(packed.decoded()).max(), err_msg=name
        )


def test_packed_weights_take_no_more_flash_than_they_say() -> None:
    """Codes of fewer than eight bits lie side by side, rows from a whole byte on."""
    for name, packed in forms(np.zeros((5, 16), np.float32) + WEIGHT[:5, :1]).items():
        made = rows(packed, packed.codes, 255)
        assert made is not None
        bits = packed.bits if packed.bits <= 8 else 16
        assert made.data.nbytes == 5 * 16 * bits // 8, name


def test_sums_fit() -> None:
    """The longest sum that a product says it may have is never exceeded."""
    for name, packed in forms(WEIGHT).items():
        made = rows(packed, packed.codes, 255)
        assert made is not None
        longest = np.abs(packed.decoded().astype(np.float64) / made.scale.reshape(-1, 1)).sum(1).max() * 255
        assert longest * (1 - 1e-5) <= made.most, name  # levels are rounded


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [0.5, 0.037, 2.0**-9])
def test_features_get_the_nearest_code(dtype: str, scale: float) -> None:
    """By digits and exponent: halves to even, tiny numbers 0, endless ones the last code, any code for what is none."""
    low, high, zero = -100, 900, 7
    rng = np.random.default_rng(4)
    ties = np.arange(-300, 1300) * scale / 2
    x = np.concatenate([ties, rng.normal(size=2000) * 300 * scale, 10.0 ** rng.uniform(-45, 38, 200), [0.0, -0.0]])
    x = np.concatenate([x, -x, [np.inf, -np.inf, np.nan]]).astype(dtype)
    port, builder = Port("x", (1,), dtype), GraphBuilder()
    grid = {"scale": np.array(scale, np.float32), "zero": np.array(zero, np.float32)}
    codes = builder.add("quantize", builder.cast(port, "float32"), low=low, high=high, **grid)
    graph = builder.graph((port,), {"action": builder.add("gemm", codes, (1,), weight=np.ones((1, 1), np.float32))})
    one = Packed(np.ones((1, 1), np.int8), 8, scale=np.array(1, np.float32))
    ops = tuple(replace(op, packed={"weight": one}) if op.kind == "gemm" else op for op in graph.ops)
    graph = Graph(graph.inputs, ops, graph.outputs)
    assert [step.kind for step in lower(graph)][:2] == ["encode", "product"]
    found = runner(write(graph, PLAIN, "policy"))({"x": x[:, None]})["action"][:, 0] / np.float32(scale)
    exact = np.clip(x[:-1].astype(np.float64) / float(np.float32(scale)), low - zero, high - zero)
    # A half is one only on a grid of powers of two; on others, digits of the scale decide.
    sure = (np.abs(exact % 1 - 0.5) > 1e-6) | (scale != 0.037)
    np.testing.assert_allclose(found[:-1][sure], np.round(exact)[sure], atol=1e-3)
    assert low - zero <= found[-1] <= high - zero


def test_factors_are_exact() -> None:
    """A multiplier and shifts round as real numbers do, over all sizes of factors and offsets."""
    rng = np.random.default_rng(3)
    for power in range(-28, 3):
        ratio = rng.uniform(0.1, 1.0, 50) * 2.0**power
        most = int(min(INT32, 2**29 / ratio.max()))
        offset = rng.normal(size=50) * most * ratio.max() / 4
        reach = most * ratio.max() + np.abs(offset).max()
        made = rescale(ratio, offset, most)
        assert made is not None
        a = rng.integers(-most, most + 1, (200, 50))
        wanted = a * ratio + offset
        assert np.abs(made(a) - wanted).max() <= 0.5 + 2**-30 * reach + 1e-6


@pytest.mark.parametrize("kind", RISING)
def test_functions_step_where_they_should(kind: str) -> None:
    """A table of places gives the nearest step of the function, on grids of all sizes."""
    z = np.concatenate([np.linspace(-9, 9, 20001), [-60.0, 60.0]])
    grids = [(1 / 127, -128, 127), (0.004, 0, 255), (0.05, -20, 235), (0.004, -235, 20), (0.3, -8, 7), (0.5, -1, 1)]
    for scale, low, high in grids:
        made = steps(kind, scale, low, high, 64.0)
        assert made is not None
        wanted = ACTIVATIONS[kind](torch.from_numpy(z)).numpy() / scale
        assert np.abs(np.clip(made(z), low, high) - np.clip(wanted, low, high)).max() <= 0.5 + 1e-9


def test_sums_end_as_what_is_needed() -> None:
    """Codes by clamping after a ReLU, by a table after tanh, scores for a choice, real numbers where asked."""
    teacher, obs = real_play("LunarLander-v3_1")
    made = on_grids(teacher, obs)
    activation = teacher.policy.network.activation_name  # type: ignore[union-attr]
    ends = [step.attrs["finish"] for step in lower(trace(made)) if step.kind == "product"]
    assert [type(end) for end in ends] == [Clamped if activation == "relu" else Stepped] * (len(ends) - 1) + [Scored]
    ends = [step.attrs["finish"] for step in lower(trace(made, ("action", "logits"))) if step.kind == "product"]
    assert Decoded in {type(end) for end in ends}


@pytest.mark.parametrize("kind", ["vector", "image"])
def test_integers_stay_inside_their_memory(kind: str, tmp_path: Path) -> None:
    """No access beyond an array, no overflow, at every level of optimization, and no library."""
    if kind == "image":
        made = image_agent(ActionRule(Discrete(4)), raw=False)
        obs = observations(made, 50, seed=3)
    else:
        teacher, obs = real_play("CartPole-v1_1")
        made = on_grids(teacher, obs[:50], 3, each=True)
    examples = {**feed(made.observation, obs[:50]), "action": made.act(obs[:50])}
    files = write(trace(made), PLAIN, "policy", examples)
    save(tmp_path, "policy", files)
    careful = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover"]
    for flags in (careful, ["-O0"], ["-Os", "-Wshadow"], ["-O3"]):
        build(tmp_path, *flags, "-DPOLICY_TEST", "policy.c", "policy_test.c", "-o", "check")
        subprocess.run([tmp_path / "check"], check=True, stdout=subprocess.DEVNULL)
    build(tmp_path, "-O3", "-c", "policy.c", "-o", "policy.o")
    unknown = set(re.findall(r" U (\S+)", subprocess.check_output(["nm", tmp_path / "policy.o"], text=True)))
    assert unknown <= {"memcpy", "memset", "memmove"}


def test_a_wrong_step_is_noticed() -> None:
    """Integers that are off by more than a few steps are refused: parity is measured against the quantized agent."""
    teacher, obs = real_play("CartPole-v1_1")
    made, other = on_grids(teacher, obs), on_grids(teacher, obs, 2)
    run = runner(write(trace(made), PLAIN, "policy"))
    with pytest.raises(RefusedError, match="does not act like"):
        check(run, other, States(obs, "rollout"), 0, grid_step(trace(made)))
