"""A policy in C acts on a microcontroller's processor as the agent does: qemu's, with nothing under it."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import needs
import numpy as np
import pytest
import torch
from cortex_m import MACHINES, run
from on_grids import on_grids
from sample_policies import POLICIES
from test_export_c import assert_alike, files_of, said_by

from kdcli.agents.agent import Agent
from kdcli.agents.policy import Policy
from kdcli.agents.states import States
from kdcli.checkpoints.read import find_file, read
from kdcli.exporters.c import write
from kdcli.exporters.c.files import CONTRACT, HEADER, SOURCE
from kdcli.exporters.c.flash import TARGETS
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.states import played
from kdcli.exporters.step import convert
from kdcli.graph.trace import trace
from kdcli.networks.mlp import MLP
from kdcli.spec import feed

pytestmark = [
    needs.cortex_m,
    needs.c_compiler,
]
SAMPLES = Path(__file__).parents[2] / "sample_checkpoints" / "ppo"
QUICK = "cortex-m4"
every_machine = pytest.mark.parametrize(
    "cpu", [name if name == QUICK else pytest.param(name, marks=pytest.mark.slow) for name in MACHINES]
)


@cache
def played_by(name: str) -> tuple[Agent, np.ndarray, np.ndarray]:
    """A teacher, 1,000 states of its own play, and what it does there."""
    agent = read(find_file(SAMPLES / name))
    obs = played(agent, 1000, 0).observations
    return agent, obs, agent.act(obs)


@every_machine
def test_real_play_is_the_same(cpu: str, tmp_path: Path) -> None:
    """In 1,000 states of a teacher's own play, the processor chooses what the teacher does."""
    agent, obs, wanted = played_by("CartPole-v1_1" if cpu == "cortex-m0" else "LunarLander-v3_1")
    files = write(trace(agent), ExportConfig(), "policy")
    ran = run(files, MACHINES[cpu], feed(agent.observation, obs), tmp_path)
    assert np.array_equal(ran.outputs["action"], wanted)


@pytest.mark.parametrize("bits", [8, 4])
@every_machine
def test_integers_are_the_same(cpu: str, bits: int, tmp_path: Path) -> None:
    """In 1,000 states of its own play the processor chooses what the quantized agent does; sizes are as it says."""
    teacher, obs, _ = played_by("CartPole-v1_1")
    agent = on_grids(teacher, obs, bits)
    found = convert(agent, States(obs, "rollout"), ExportConfig(format="c"))
    ran = run(found.files, MACHINES[cpu], feed(agent.observation, obs), tmp_path)
    assert np.array_equal(ran.outputs["action"], agent.act(obs))
    assert abs(ran.constants - found.record["memory"]["constants"]) < 64  # what compilers align
    assert found.record["memory"]["code"].keys() == TARGETS.keys()


@cache
def small_student() -> Agent:
    """A student of LunarLander of 916 parameters that imitates its teacher on 4,000 states, in 8 bits."""
    teacher, _, _ = played_by("LunarLander-v3_1")
    obs = played(teacher, 4000, 1).observations
    torch.manual_seed(0)
    network = MLP(8, (24, 24), 4, "relu")
    features, wanted = teacher.preprocess(obs), torch.from_numpy(teacher.act(obs))
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    for _ in range(1500):
        loss = torch.nn.functional.cross_entropy(network(features), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    policy = Policy(network, teacher.policy.rule, "logits").eval().requires_grad_(False)
    return on_grids(replace(teacher, policy=policy), obs)


@pytest.mark.slow
@every_machine
def test_lunar_lander_fits_in_a_kilobyte_and_a_half(cpu: str, tmp_path: Path) -> None:
    """An int8 student has under 1,500 bytes of constants and acts the same in 1,000 states of its own play."""
    agent = small_student()
    states = played(agent, 1000, 0)
    found = convert(agent, states, ExportConfig(format="c"))
    ran = run(found.files, MACHINES[cpu], feed(agent.observation, states.observations), tmp_path)
    assert np.array_equal(ran.outputs["action"], agent.act(states.observations))
    assert max(ran.constants, found.record["memory"]["constants"]) < 1500


def few_layers(cpu: str) -> list[str]:
    """Memory, images and Dicts, doubles and masks; the smallest processor has no room for more."""
    return ["gru_dict", "stack_image"] if cpu == "cortex-m0" else ["gru_dict", "stack_image", "sees_normalized", "lstm"]


@every_machine
def test_layers_are_the_same(cpu: str, tmp_path: Path) -> None:
    """Every output, also those of policies with memory and of images, is the agent's to 1e-5."""
    for name in few_layers(cpu):
        given, wanted = said_by(POLICIES[name](), 20)
        assert_alike(run(files_of(name), MACHINES[cpu], given, tmp_path).outputs, wanted)


LOOP = """
#include "through.h"
void through_run(const float *x, float *y, through_work *work)
{
    int n = 1000;
    (void)work;
    __asm__ volatile(".syntax unified\\n 1: subs %0, #1\\n bne 1b" : "+l"(n) : : "cc");
    y[0] = x[0];
}
"""

DECLARED = """
typedef struct { char nothing; } through_work;
void through_run(const float *x, float *y, through_work *work);
"""


@every_machine
def test_instructions_are_counted(cpu: str, tmp_path: Path) -> None:
    """A loop of 1,000 turns of two instructions counts as 2,000, and the few around it."""
    ends = {
        way: [{"name": name, "dtype": "float32", "shape": [1]}] for way, name in (("inputs", "x"), ("outputs", "y"))
    }
    terms = json.dumps({**ends, "symbol": "through", "header": "through.h", "work_bytes": 0})
    header = f"/*\n{CONTRACT}{terms}\n */\n{DECLARED}".encode()
    given = np.arange(5, dtype=np.float32)[:, None]
    ran = run({SOURCE: LOOP.encode(), HEADER: header}, MACHINES[cpu], {"x": given}, tmp_path)
    assert np.array_equal(ran.outputs["y"], given)
    assert 2000 <= ran.instructions.min() <= ran.instructions.max() <= 2030
