"""How fast networks of several widths are in onnxruntime on 8 bits: static and dynamic grids beside the floats.

    OMP_NUM_THREADS=1 python tests/studies/quantized_latency.py

Networks have random weights, which take as long as trained ones. All files are called in turns; the times are medians,
of processor time for one observation and for 256, in brackets shares of the floats' time. Then convolutions of an Atari
network, one image, in floats and by ConvInteger, which dynamic grids would need.
"""

from __future__ import annotations

import time
from collections import defaultdict

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.observation import Preprocess
from kdcli.agents.onnx.session import OnnxAgent, start
from kdcli.agents.policy import Policy
from kdcli.agents.states import States
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.step import convert
from kdcli.networks.mlp import MLP
from kdcli.quantization.plan import Plan
from kdcli.quantization.quantize import quantize
from kdcli.spec import box

SHAPES = ((17, (64, 64)), (17, (256, 256)), (17, (400, 300)), (376, (1024, 1024)), (64, (2048, 2048)))
WAYS = {
    "static, a scale a row": ("int8", 8, 8),
    "static, one scale": ("int8:rows=no", 8, 8),
    "dynamic, a scale a row": ("int8", 8, 8, "dynamic"),
}
ROUNDS, BUDGET = 15, 0.05  # seconds for each file in a round


def agent(inputs: int, hidden: tuple[int, ...]) -> Agent:
    """A policy of torques with random weights."""
    torch.manual_seed(0)
    network = MLP(inputs, hidden, 6, "relu")
    rule = ActionRule(box((6,), -1.0, 1.0), squash="tanh")
    return Agent(Preprocess(box((inputs,))), Policy(network, rule, "mean").eval(), "random", None, {})


def timed(files: dict[str, OnnxAgent], obs: np.ndarray) -> dict[str, float]:
    """Median microseconds a call."""
    found = defaultdict(list)
    counts = {name: _calls(file, obs) for name, file in files.items()}
    for _ in range(ROUNDS):
        for name, file in files.items():
            file.act(obs)
            begin = time.thread_time()
            for _ in range(counts[name]):
                file.act(obs)
            found[name].append((time.thread_time() - begin) / counts[name] * 1e6)
    return {name: float(np.median(each)) for name, each in found.items()}


def _calls(file: OnnxAgent, obs: np.ndarray) -> int:
    file.act(obs)
    begin = time.thread_time()
    file.act(obs)
    return max(3, int(BUDGET / (time.thread_time() - begin)))


def convolution(
    shape: tuple[int, int], out: int, kernel: int, stride: int, whole: bool
) -> onnxruntime.InferenceSession:
    """Of images (C, N, N), in floats or in whole numbers."""
    channels, size = shape
    weight = np.random.default_rng(0).integers(-127, 128, (out, channels, kernel, kernel))
    numbers = [numpy_helper.from_array(weight.astype(np.int8 if whole else np.float32), "w")]
    node = helper.make_node("ConvInteger" if whole else "Conv", ["x", "w"], ["y"], strides=[stride, stride])
    kinds = (TensorProto.UINT8, TensorProto.INT32) if whole else (TensorProto.FLOAT, TensorProto.FLOAT)
    x = helper.make_tensor_value_info("x", kinds[0], [1, channels, size, size])
    graph = helper.make_graph([node], "one", [x], [helper.make_tensor_value_info("y", kinds[1], None)], numbers)
    return start(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString(), "it"
    )


def convolutions() -> None:
    """Print the second table."""
    print("\n| convolution | floats | ConvInteger |\n| --- | ---: | ---: |")
    for (channels, size), out, kernel, stride in (((4, 84), 32, 8, 4), ((32, 20), 64, 4, 2), ((64, 9), 64, 3, 1)):
        times = []
        for whole in (False, True):
            session = convolution((channels, size), out, kernel, stride, whole)
            x, found = np.ones((1, channels, size, size), np.uint8 if whole else np.float32), []
            for _ in range(300):
                begin = time.perf_counter()
                session.run(None, {"x": x})
                found.append(time.perf_counter() - begin)
            times.append(np.median(found) * 1e6)
        name = f"{channels}x{size}x{size} -> {out}, {kernel}x{kernel} by {stride}"
        print(f"| {name} | {times[0]:.0f} us | {times[1]:.0f} us |")


def main() -> None:
    """Print the tables."""
    print("| network | batch | floats | " + " | ".join(WAYS) + " |\n| --- | ---: | ---: |" + " ---: |" * len(WAYS))
    for inputs, hidden in SHAPES:
        floats, rng = agent(inputs, hidden), np.random.default_rng(0)
        states = States(rng.normal(size=(512, inputs)).astype(np.float32), "random")
        made = {"floats": floats, **{name: quantize(floats, Plan.parse(*way), states) for name, way in WAYS.items()}}
        files = {name: convert(each, states, ExportConfig(states=64)).agent for name, each in made.items()}
        for n in (1, 256):
            times = timed(files, states.observations[:n])
            rest = " | ".join(f"{times[name]:,.1f} ({times[name] / times['floats']:.2f})" for name in WAYS)
            print(
                f"| {'-'.join(map(str, (inputs, *hidden, 6)))} | {n} | {times['floats']:,.1f} us | {rest} |", flush=True
            )
    convolutions()


if __name__ == "__main__":
    main()
