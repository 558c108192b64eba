"""One decision in C, NumPy, onnxruntime and torch: the same policy, in turns, in one process, on one thread.

    OPENBLAS_NUM_THREADS=1 python tests/studies/c_latency.py [rounds] [AGENT...]

LunarLander's size (64x64, tanh), HalfCheetah's (256x256, ReLU; the agent in KDCLI_ZOO where that is set), a
convolutional network for 84x84x4 images (Mnih et al. 2015) with weights as torch draws them, and one that was trained
on Pong, on its own frames (where KDCLI_TEACHERS is set). C is compiled with -O2, -O3, and -O3 -march=native, and called
as a C program does it (a loop of calls over different observations, divided) and from Python through ctypes, with
pointers that are ready. A figure is the median over rounds of a round's median; a ratio is the median over rounds of
the ratio to onnxruntime's session.run in that round. An MLP is also put on grids after training and called as integer
C in 8 and in 4 bits a weight. Agents that are named take the place of these policies, on states of their own play.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter_ns

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "rooms"))

from on_grids import on_grids
from safetensors.torch import load_file

from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.observation import Preprocess
from kdcli.agents.onnx.session import start
from kdcli.agents.policy import Policy
from kdcli.checkpoints.read import find_file, read
from kdcli.exporters import c
from kdcli.exporters.c.stamp import contract
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.numpy import writer as numpy_file
from kdcli.exporters.onnx import writer as onnx
from kdcli.exporters.states import played
from kdcli.graph.trace import trace
from kdcli.networks.mlp import MLP
from kdcli.networks.stack import Branch, Stack
from kdcli.spec import Box, Discrete, box

SINGLES = 64
CALLS = 20
IN_C = 16
LEVELS = (("-O2",), ("-O3",), ("-O3", "-march=native"))
NATURE = (
    *(("conv2d", {"out": 32, "kernel": 8, "stride": 4}), ("relu", {})),
    *(("conv2d", {"out": 64, "kernel": 4, "stride": 2}), ("relu", {})),
    *(("conv2d", {"out": 64, "kernel": 3}), ("relu", {}), ("flatten", {})),
)
LOOP = """
#include "policy.h"
void loop(int n, const {kind} *obs, {action} *action, policy_work *work)
{{
    for (int i = 0; i < n; i++)
        policy_run(obs + i % {singles} * {size}, action, work);
}}
"""


def agents() -> dict[str, Agent]:
    """The policies by name."""
    torch.manual_seed(0)
    image = Preprocess(box((4, 84, 84), 0, 255, "uint8"), image=True)
    stack = Stack([Branch(0, (4, 84, 84), NATURE)], (("linear", {"out": 512}), ("relu", {})), 6)
    found = {
        "LunarLander 64x64 tanh": _agent(Preprocess(box((8,))), MLP(8, (64, 64), 4), ActionRule(Discrete(4))),
        "HalfCheetah 256x256 ReLU": _half_cheetah(),
        "84x84x4 convolutional, untrained": _agent(image, stack, ActionRule(Discrete(6))),
    }
    if "KDCLI_TEACHERS" in os.environ:
        found["84x84x4 convolutional, Pong"] = _pong(image, Path(os.environ["KDCLI_TEACHERS"], "atari"))
    return found


def _agent(sees: Preprocess, network: MLP | Stack, rule: ActionRule) -> Agent:
    return Agent(sees, Policy(network, rule, "mean" if rule.continuous else "logits").eval())


def _half_cheetah() -> Agent:
    folder = os.environ.get("KDCLI_ZOO")
    if folder:
        return read(find_file(Path(folder, "ppo", "HalfCheetah-v3_1")))
    rule = ActionRule(box((6,), -1.0, 1.0))
    return _agent(Preprocess(box((17,), dtype="float64")), MLP(17, (256, 256), 6, "relu"), rule)


def _pong(image: Preprocess, folder: Path) -> Agent:
    """The layers of the teacher, whose last convolution has half the channels."""
    narrow = (*NATURE[:4], ("conv2d", {"out": 32, "kernel": 3}), *NATURE[5:])
    stack = Stack([Branch(0, (4, 84, 84), narrow)], (("linear", {"out": 512}), ("relu", {})), 6)
    tensors = load_file(folder / "pong.safetensors")
    layers = ("conv1", "conv2", "conv3", "fc", "policy")
    names = [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
    for parameter, name in zip(stack.parameters(), names, strict=True):
        parameter.data = tensors[name].float()
    return _agent(image, stack, ActionRule(Discrete(6)))


def _frames(made: Agent) -> np.ndarray:
    """Frames of Pong as the agent plays it (SINGLES, 4, 84, 84), four apart."""
    from ale_py.vector_env import AtariVectorEnv

    games = AtariVectorEnv(game="pong", num_envs=4)
    obs, found = np.asarray(games.reset(seed=0)[0]), []
    for step in range(4 * SINGLES):
        if step % 16 == 0:
            found.append(obs.copy())
        obs = np.asarray(games.step(made.act(obs))[0])
    return np.concatenate(found)[:SINGLES]


def observations(made: Agent, name: str) -> np.ndarray:
    """Different observations (SINGLES, *shape)."""
    if name.endswith("Pong"):
        return _frames(made)
    rng, space = np.random.default_rng(0), made.observation
    assert isinstance(space, Box)
    if space.dtype == "uint8":
        # Atari's screens: mostly of one colour, with a few bright things on it.
        spots = rng.random((SINGLES, *space.shape)) < 0.1
        return np.where(spots, rng.integers(0, 256, (SINGLES, *space.shape)), 87).astype("uint8")
    return rng.standard_normal((SINGLES, *space.shape)).astype(space.dtype)


Call = Callable[[int], object]


class Compiled:
    """A policy in C, compiled once with `flags`."""

    def __init__(self, made: Agent, obs: np.ndarray, flags: Sequence[str], folder: Path) -> None:
        files = c.write(trace(made), ExportConfig(), "policy")
        for suffix, data in files.items():
            (folder / f"policy{suffix}").write_bytes(data)
        self.obs, terms = obs, contract(files)
        (port,) = terms["outputs"]
        kinds = {"float32": "float", "float64": "double", "uint8": "uint8_t", "int64": "int64_t"}
        sizes = {"singles": SINGLES, "size": obs[0].size}
        text = LOOP.format(kind=kinds[obs.dtype.name], action=kinds[port["dtype"]], **sizes)
        (folder / "loop.c").write_text(text)
        library = folder / f"{'_'.join(flags)}.so"
        command = ["cc", *flags, "-shared", "-fPIC", "policy.c", "loop.c", "-o", library]
        subprocess.run(command, cwd=folder, check=True)
        self._library = ctypes.CDLL(str(library))
        self._run, self._loop = self._library.policy_run, self._library.loop
        self.action = np.zeros((1, *port["shape"]), port["dtype"])
        self._work = np.zeros(terms["work_bytes"] // 8 + 1)
        self._ends = [ctypes.c_void_p(array.ctypes.data) for array in (self.action, self._work)]
        self._starts = [ctypes.c_void_p(row.ctypes.data) for row in obs]

    def call(self, i: int) -> None:
        """One decision, called from Python."""
        self._run(self._starts[i % SINGLES], *self._ends)

    def loop(self, n: int) -> None:
        """`n` decisions, called from C."""
        self._loop(n, self._starts[0], *self._ends)


def in_integers(made: Agent, obs: np.ndarray, folder: Path) -> dict[str, Compiled]:
    """An MLP on grids, in 8 and in 4 bits."""
    found = {}
    for bits in (8, 4) if isinstance(made.policy.network, MLP) else ():
        place = folder / f"int{bits}"
        place.mkdir()
        found[f"int{bits} -O3"] = Compiled(on_grids(made, obs, bits), obs, ("-O3",), place)
    return found


def subjects(made: Agent, obs: np.ndarray, folder: Path) -> tuple[dict[str, Call], dict[str, Callable[[int], None]]]:
    """Calls of one decision, and loops of many, by name."""
    graph, rows = trace(made), [obs[i : i + 1] for i in range(SINGLES)]
    session = start(onnx.write(graph, ExportConfig(), "")[".onnx"], "the policy")
    numpy_run = numpy_file.runner(numpy_file.write(graph, ExportConfig(), ""))
    compiled = {" ".join(flags): Compiled(made, obs, flags, folder) for flags in LEVELS}
    calls: dict[str, Call] = {
        "onnxruntime": lambda i: session.run(["action"], {"obs": rows[i % SINGLES]}),
        "torch": lambda i: made.act(rows[i % SINGLES]),
        "NumPy": lambda i: numpy_run({"obs": rows[i % SINGLES]}),
    }
    calls |= {f"C {name}, ctypes": one.call for name, one in compiled.items()}
    wanted = session.run(["action"], {"obs": obs})[0]
    for one in compiled.values():
        for i in range(SINGLES):
            one.call(i)
            np.testing.assert_allclose(one.action[0], wanted[i], atol=1e-5)
    compiled |= in_integers(made, obs, folder)
    return calls, {f"C {name}, loop": one.loop for name, one in compiled.items()}


def measure(made: Agent, obs: np.ndarray, rounds: int) -> dict[str, np.ndarray]:
    """Microseconds of one decision in each round, (rounds,), by subject."""
    in_c = 1 if obs.dtype == np.uint8 else IN_C  # long loops are interrupted by others on the machine
    with tempfile.TemporaryDirectory() as folder:
        calls, loops = subjects(made, obs, Path(folder))
        times: dict[str, list[float]] = {name: [] for name in (*calls, *loops)}
        for turn in range(rounds):
            for name, call in calls.items():
                times[name].append(_median(call, 8 if name == "NumPy" else CALLS, turn))
            for name, loop in loops.items():
                times[name].append(_median(lambda _, loop=loop: loop(in_c), CALLS, turn) / in_c)  # type: ignore[misc]
    return {name: np.array(found) / 1e3 for name, found in times.items()}


def _median(call: Call, n: int, first: int) -> float:
    for i in range(4):
        call(first + i)
    found = []
    for i in range(n):
        began = perf_counter_ns()
        call(first + i)
        found.append(perf_counter_ns() - began)
    return float(np.median(found))


def main(rounds: int = 60, *given: Path) -> None:
    """Print a table an agent."""
    torch.set_num_threads(1)
    named = {path.stem: read(find_file(path)) for path in given}
    for name, made in (named or agents()).items():
        obs = played(made, SINGLES, 0).observations if named else observations(made, name)
        times = measure(made, obs, rounds)
        print(f"\n{name}")
        print(f"{'':28}{'p50 us':>10}{'x onnxruntime':>15}{'x torch':>10}")
        for subject, found in times.items():
            ratios = [np.median(found / times[other]) for other in ("onnxruntime", "torch")]
            print(f"{subject:28}{np.median(found):>10.2f}{ratios[0]:>15.3f}{ratios[1]:>10.4f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]), *map(Path, sys.argv[2:]))
