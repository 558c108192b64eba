"""How fast networks of several widths are in onnxruntime on 8 bits: static and dynamic grids beside the floats.

    OMP_NUM_THREADS=1 python tests/studies/quantized_latency.py

Networks have random weights, which take as long as trained ones. All files are called in turns; the times are medians,
of processor time for one observation and for 256, in brackets shares of the floats' time.
"""

from __future__ import annotations

import time
from collections import defaultdict

import numpy as np
import torch

from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.observation import Preprocess
from kdcli.agents.policy import Policy
from kdcli.agents.runtime import OnnxAgent
from kdcli.agents.states import States
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.step import convert
from kdcli.networks.mlp import MLP
from kdcli.quantization.plan import Plan
from kdcli.quantization.work import quantize
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


def main() -> None:
    """Print the table."""
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


if __name__ == "__main__":
    main()
