"""Every piece of advice leads somewhere: an error is provoked, its last line is followed, and then it works."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from ran import Ran
from safetensors.torch import save_file
from test_own_env import MODULE
from toy_teachers import choose_teacher, reach_teacher

from kdcli.agents import store
from kdcli.agents.observation import Preprocess
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.step import export
from kdcli.spec import EnvSpec, box

QUICK = ("--episodes", "12", "--latency-budget", "0", "--linear-budget", "0")
LESSON = ("--labels", "100", "--rounds", "1", "--updates", "5")
PRUNE = ["prune", "choose", "-o", "x.safetensors", "--rounds", "1", "--recover", "0", "--states", "200", "--to"]
_OPTION = re.compile(r"(--[a-z][a-z-]*)(?: ('[^']*'|[^\s,;]+))?")
# Advice on files, which the command line names already.
_FILES = ("a card missing", "an unsampled file")
_FLAGS = ("--force", "--trust", "--json")

MASKED = """
import gymnasium, numpy as np
from gymnasium import spaces

class Bins(gymnasium.Env):
    observation_space, action_space = spaces.Box(-1, 1, (4,), np.float32), spaces.Discrete(4)
    def _see(self): return self.np_random.uniform(-1, 1, 4).astype(np.float32)
    def valid_action_mask(self): return np.array([1, 1, 0, 1], bool)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._see(), {}
    def step(self, action):
        self.t += 1
        return self._see(), float(action), False, self.t >= 5, {}
"""


@dataclass(frozen=True)
class Case:
    """A command line that fails with `what`, and what remains to be said by hand where the advice leaves a choice."""

    words: tuple[str, ...]
    what: str
    fill: dict[str, str] = field(default_factory=dict)
    codes: tuple[int, ...] = (0, 3)


CASES = {
    "a wrong id": Case(("bench", "reach", "--env", "kdcli/Reech-v0", *QUICK), "cannot make kdcli/Reech-v0"),
    "no env": Case(("bench", "homeless", *QUICK), "no agent says which env", {"--env": "kdcli/Reach-v0"}),
    "no env to learn in": Case(
        ("distill", "homeless", "-o", "x.safetensors", *LESSON), "env is not known", {"--env": "kdcli/Reach-v0"}
    ),
    "no env to record in": Case(
        ("rollout", "homeless", "-o", "d", "--steps", "50"), "env is not known", {"--env": "kdcli/Reach-v0"}
    ),
    "frames at once": Case(("bench", "stacked", "--env", "kdcli/Choose-v0", *QUICK), "trained on Box(6,)"),
    "one input more": Case(("bench", "timed", "--env", "kdcli/Choose-v0", *QUICK), "trained on Box(4,)"),
    "an output there": Case(
        ("rollout", "reach", "-o", "reach.safetensors", "--steps", "50"), "exists", {"-o": "other"}
    ),
    "a file of code": Case(("bench", "quoted", *QUICK), "code of a module"),
    "a second simulator": Case(("bench", "choose", "--env", "ownenv:Single", *QUICK), "a second one beside the first"),
    "a wrapper that does not fit": Case(
        ("bench", "reach", "--env", "kdcli/Choose-v0", "--wrapper", "mask-velocity", *QUICK),
        "velocities",
        {"--env": "kdcli/Reach-v0"},
    ),
    "a wrapper's arguments": Case(
        ("bench", "choose", "--env", "kdcli/Choose-v0", "--wrapper", "ownenv:Plain:3", *QUICK),
        "cannot read",
        {"--wrapper": "ownenv:Plain"},
    ),
    "no such wrapper": Case(
        ("bench", "choose", "--wrapper", "frame-stak:2", *QUICK), "unknown env wrapper", {"--wrapper": "frame-stack:1"}
    ),
    "a limit": Case(("bench", "reach", "--env-kwargs", "max_episode_steps=no", *QUICK), "max_episode_steps"),
    "an old id": Case(
        ("bench", "choose", "--env", "Choose-v0", *QUICK), "cannot make Choose-v0", {"--env": "kdcli/Choose-v0"}
    ),
    "no mask": Case(
        ("bench", "masked", "--env", "bins:Bins", "--wrapper", "action-mask", *QUICK), "which actions are allowed"
    ),
    "no such mask": Case(
        ("bench", "masked", "--env", "bins:Bins", "--wrapper", "action-mask:mask", *QUICK), "no method mask"
    ),
    "which output": Case(
        ("inspect", "two.onnx", "--env", "kdcli/Choose-v0"), "which output acts", {"--signal": "logits"}
    ),
    "no such output": Case(
        ("inspect", "two.onnx", "--env", "kdcli/Choose-v0", "--output-name", "x", "--signal", "logits"), "no output 'x'"
    ),
    "which signal": Case(("inspect", "one.onnx", "--env", "kdcli/Choose-v0"), "what it puts out"),
    "which real signal": Case(("inspect", "reals.onnx", "--env", "kdcli/Reach-v0"), "what it puts out"),
    "a loss without its signal": Case(
        ("distill", "choose", "-o", "x.safetensors", *LESSON, "--loss", "value"), "needs the teacher's value"
    ),
    "too few weights": Case(
        (*PRUNE, "nonzeros<=3", "--pattern", "weights", "--importance", "magnitude"), "are too few", codes=(0, 1)
    ),
    "units' importance": Case((*PRUNE, "nonzeros<=45", "--pattern", "weights"), "judges units", codes=(0, 1)),
    "too small": Case((*PRUNE, "nonzeros<=3"), "cannot come to", codes=(0, 1)),
    "too few bits": Case(
        ("quantize", "choose", "-o", "x.safetensors", "--mixed", "1", "--episodes", "12"),
        "no mixture has 1 bits",
        codes=(0, 1, 3),
    ),
    "a card missing": Case(("inspect", "bare.safetensors"), "tensors alone"),
    "an offline lesson": Case(
        ("distill", "choose", "-o", "x.safetensors", "--rounds", "1", "--updates", "5", "--data", "offline"),
        "needs a dataset",
        {"--dataset": "data"},
    ),
    "an unsampled file": Case(("bench", "file.onnx", "--sampled", *QUICK), "cannot be sampled from"),
}


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Agents and programs that the cases name."""
    folder = tmp_path_factory.mktemp("stock")
    choose, reach = choose_teacher(8), reach_teacher(8)
    agents = {
        "choose": choose,
        "reach": reach,
        "homeless": replace(reach, env=None),
        "quoted": replace(choose, env=EnvSpec("ownenv:Own-v0", wrappers=("ownenv:Plain",))),
        "stacked": wider(6),
        "timed": wider(4),
        "masked": masked(),
    }
    for name, agent in agents.items():
        store.save(folder / f"{name}.safetensors", agent, {})
    export(choose, folder / "file.onnx", None, ExportConfig())
    program(folder / "two.onnx", 3, {"a": 3, "b": 3})
    program(folder / "one.onnx", 3, {"output": 3})
    program(folder / "reals.onnx", 2, {"output": 1})
    save_file({"net.0.weight": torch.eye(3), "net.0.bias": torch.zeros(3)}, folder / "bare.safetensors")
    (folder / "ownenv.py").write_text(MODULE)
    (folder / "bins.py").write_text(MASKED)
    return folder


def wider(n: int) -> Any:
    """An agent like the one of kdcli/Choose-v0 that reads `n` numbers."""
    from kdcli.agents.action import ActionRule
    from kdcli.agents.agent import Agent
    from kdcli.agents.policy import Policy
    from kdcli.networks.mlp import MLP

    rule = ActionRule(choose_teacher(8).action)
    return Agent(Preprocess(box((n,), -1.0, 1.0)), Policy(MLP(n, (4,), 3, "tanh"), rule, "logits").eval(), "wide", None)


def masked() -> Any:
    """An agent of four numbers that asks which of four actions are allowed."""
    from kdcli.agents.action import ActionRule
    from kdcli.agents.agent import Agent
    from kdcli.agents.observation import JointPreprocess
    from kdcli.agents.policy import Policy
    from kdcli.networks.mlp import MLP
    from kdcli.spec import MASK, OBS, Dict, Discrete, MultiBinary

    parts = {OBS: Preprocess(box((4,), -1.0, 1.0)), MASK: Preprocess(MultiBinary(4))}
    sees = JointPreprocess(Dict({name: part.space for name, part in parts.items()}), parts)
    rule = ActionRule(Discrete(4), masked=True)
    return Agent(sees, Policy(MLP(4, (4,), 4, "tanh"), rule, "logits").eval(), "masked", None)


def program(path: Path, width: int, outputs: dict[str, int]) -> None:
    """An ONNX file of somebody's: `obs` (batch, width) times a matrix for every output."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.normal(size=(width, n)).astype(np.float32), f"w_{name}")
        for name, n in outputs.items()
    ]
    nodes = [helper.make_node("MatMul", ["obs", f"w_{name}"], [name]) for name in outputs]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", n]) for name, n in outputs.items()]
    start = helper.make_tensor_value_info("obs", TensorProto.FLOAT, ["batch", width])
    graph = helper.make_graph(nodes, "policy", [start], ends, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.fixture
def here(stock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the stock as the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for file in stock.iterdir():
        Path(file.name).write_bytes(file.read_bytes())
    yield tmp_path
    for module in ("ownenv", "bins"):
        sys.modules.pop(module, None)
    gymnasium.registry.pop("Own-v0", None)


def followed(words: list[str], advice: str, fill: dict[str, str]) -> list[str]:
    """The command line as the advice has it: options taken out, put in, or given another value."""
    if least := re.search(r"ask for (\d+) or more in --to", advice):
        at = words.index("--to") + 1
        return [*words[:at], f"{words[at].partition('<=')[0]}<={least[1]}", *words[at + 1 :]]
    if out := re.search(r"leave (--[a-z-]+) out", advice):
        at = words.index(out[1])
        return words[:at] + words[at + 2 :]
    words = list(words)
    seen: set[str] = set()
    for name, value in _OPTION.findall(advice):
        value = fill.get(name, value.strip("'"))
        if name in words and name not in seen:
            words[words.index(name) + 1] = value
        else:
            words += [name] if name in _FLAGS else [name, value]
        seen.add(name)
    for name in [name for name in fill if name not in seen]:
        if name in words:
            words[words.index(name) + 1] = fill[name]
        else:
            words += [name, fill[name]]
    return words


@pytest.mark.parametrize("name", CASES)
def test_advice_leads_somewhere(here: Path, kdcli: Callable[..., Ran], name: str) -> None:
    """Law: the command line that is changed as the error's last line says does what was wanted."""
    case = CASES[name]
    agents = {path.stem for path in here.glob("*.safetensors")} - {"bare"}
    words = [f"{word}.safetensors" if word in agents else word for word in case.words]
    ran = kdcli(*words)
    assert ran.code in (2, 4), ran.err
    lines = ran.err.splitlines()
    what, advice = next(line for line in lines if line.startswith("kdcli: ")), lines[-1]
    assert case.what in what
    prepare(name, advice, kdcli)
    again = kdcli(*(words if name in _FILES else followed(words, advice, case.fill)))
    assert again.code in case.codes, f"{advice}\n{again.err}"


def prepare(name: str, advice: str, kdcli: Callable[..., Ran]) -> None:
    """What is done beside the command line: files are made as the advice tells."""
    if name == "a card missing":
        assert "of the same name and .json" in advice
        card = {"trunk": [], "heads": {"net.0": "logits"}, "env": {"id": "kdcli/Choose-v0"}}
        Path("bare.json").write_text(json.dumps({**card, "tensors": {"net.0.weight": [3, 3], "net.0.bias": [3]}}))
    if name == "an offline lesson":
        assert kdcli("rollout", "choose.safetensors", "-o", "data", "--steps", "200").code == 0
    if name == "an unsampled file":
        assert advice.startswith("export it with --outputs ")
        outputs = advice.rpartition(" ")[2]
        assert kdcli("export", "choose.safetensors", "-o", "file.onnx", "--outputs", outputs, "--force").code == 0
