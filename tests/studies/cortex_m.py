"""Students on emulated Cortex-M processors: float C, and integers in 8 and 4 bits, on 1,000 states of their own play.

    python tests/studies/cortex_m.py STUDENT... [--states 1000]

A student that is not quantized yet is put on grids after training, without calibration of its own: features on one
grid of 16 bits, activations on 8, weights on 8 or 4 bits a row. Every program is bare metal, compiled with -O2; columns
are states in which it acts as its agent does in torch, the largest difference, instructions of a decision (median, and
the most), bytes of constants, of code, of flash with what it takes of libgcc, and of workspace.
Needs gcc-arm-none-eabi and qemu-system-arm.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "rooms"))

from cortex_m import MACHINES, Machine, run
from on_grids import on_grids

from kdcli.agents.agent import Agent
from kdcli.agents.packed_weights import is_quantized
from kdcli.agents.states import States
from kdcli.checkpoints.read import find_file, read
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.states import played
from kdcli.exporters.step import convert
from kdcli.spec import feed

HEADS = ("same", "gap", "instr.", "most", "const", "code", "flash", "RAM")


def forms(agent: Agent, obs: np.ndarray) -> Iterator[tuple[str, Agent]]:
    """The agent as it is, and quantized, by name."""
    yield ("as it is" if is_quantized(agent.policy) else "float"), agent
    if not is_quantized(agent.policy):
        for bits in (8, 4):
            yield f"int{bits}", on_grids(agent, obs, bits)


def row(agent: Agent, obs: np.ndarray, machine: Machine) -> str:
    """One processor's figures."""
    made = convert(agent, States(obs, "rollout"), ExportConfig(format="c"))
    with tempfile.TemporaryDirectory() as folder:
        ran = run(made.files, machine, feed(agent.observation, obs), Path(folder))
    wanted = agent.act(obs)
    gap = np.abs(ran.outputs["action"].astype(np.float64) - wanted).reshape(len(obs), -1).max(1)
    same = int((gap <= 1e-5).sum())
    counts = int(np.median(ran.instructions)), ran.instructions.max()
    sizes = ran.constants, ran.code, ran.linked, made.record["memory"]["work"]
    return f"{same:>7,} {gap.max():>7.1e} " + " ".join(f"{n:>7,}" for n in (*counts, *sizes))


def main() -> None:
    """A table a student."""
    parser = argparse.ArgumentParser()
    parser.add_argument("students", nargs="+", type=Path)
    parser.add_argument("--states", type=int, default=1000)
    given = parser.parse_args()
    for path in given.students:
        agent = read(find_file(path))
        obs = played(agent, given.states, 0).observations
        print(f"\n{path.stem}: {agent.policy.network}, {agent.n_params:,} parameters, {len(obs):,} states")
        print(f"{'':20s} {' '.join(f'{head:>7s}' for head in HEADS)}")
        for form, made in forms(agent, obs):
            for cpu, machine in MACHINES.items():
                try:
                    print(f"{form:9s} {cpu:10s} {row(made, obs, machine)}", flush=True)
                except AssertionError as error:
                    print(f"{form:9s} {cpu:10s} {str(error).splitlines()[-1][-60:]}", flush=True)


if __name__ == "__main__":
    main()
