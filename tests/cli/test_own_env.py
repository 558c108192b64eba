"""The user's own env: a file in the current folder, whose faults are told as its own."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import gymnasium
import pytest
import torch
from ran import Ran
from toy_teachers import choose_teacher

from kdcli.agents import store

MODULE = '''
import gymnasium, numpy as np
from gymnasium import spaces

class Own(gymnasium.Env):
    """Name the largest of three numbers."""
    broken = None
    def __init__(self, size=3):
        self.observation_space, self.action_space = spaces.Box(-1, 1, (size,), np.float32), spaces.Discrete(3)
    def _see(self):
        self.seen = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        return self.seen
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._see(), {}
    def step(self, action):
        worth, self.t = float(action == self.seen.argmax()), self.t + 1
        return self._see(), worth, False, self.t >= 10, {"is_success": self.t >= 10 and worth > 0}

gymnasium.register("Own-v0", Own)

class Plain(gymnasium.Wrapper):
    """Changes nothing."""

class NoSeed(Own):
    def reset(self):
        super().reset(seed=0)
        return self._see(), {}
class Alone(Own):
    def reset(self, *, seed=None, options=None): return super().reset(seed=seed)[0]
class Four(Own):
    def step(self, action):
        obs, reward, over, cut, info = super().step(action)
        return obs, reward, over or cut, info
class Raises(Own):
    def step(self, action): return {}["price"]
class RaisesLater(Own):
    def step(self, action): return super().step(action) if self.t < 4 else 1 / 0
class RaisesInNumpy(Own):
    def step(self, action): return np.concatenate([np.zeros(2), np.zeros((2, 2))])
class RaisesAtReset(Own):
    def reset(self, *, seed=None, options=None): raise OSError("no such port")
class RaisesAtFirst(Own):
    def __init__(self): self.port = self.ports[0]
class Leaves(Own):
    def step(self, action): raise SystemExit(3)
class WrongShape(Own):
    def _see(self): return np.zeros(4, np.float32)
class OneNumber(Own):
    def _see(self): self.seen = np.zeros(3); return np.float32(0.5)
class WrongShapeLater(Own):
    def _see(self): return super()._see() if self.t < 4 else np.zeros(4)
class Nan(Own):
    def _see(self): self.seen = np.zeros(3); return np.array([0, np.nan, 0])
class NanLater(Own):
    def _see(self): return super()._see() * (np.nan if self.t > 4 else 1)
class NanReward(Own):
    def step(self, action): return self._see(), float("nan"), False, False, {}
class ArrayReward(Own):
    def step(self, action): return self._see(), np.array([1.0]), False, False, {}
class NoInfo(Own):
    def step(self, action): return self._see(), 1.0, False, False, None
class Bytes(Own):
    def __init__(self): super().__init__(); self.observation_space = spaces.Box(0, 255, (3,), np.uint8)
class Text(Own):
    def _see(self): self.seen = np.zeros(3); return "left"
class NotOne: ...

class Single(Own):
    alive = opened = 0
    def __init__(self):
        super().__init__()
        if Single.alive: raise RuntimeError("port 5004 is in use")
        Single.alive, Single.opened = 1, Single.opened + 1
    def close(self): Single.alive = 0
'''
FAULTS = {
    "NoSeed": ("does not keep gymnasium's contract in reset", "takes no seed"),
    "Alone": ("does not keep gymnasium's contract in reset", "returns a ndarray"),
    "Four": ("does not keep gymnasium's contract in step", "4 values"),
    "Raises": ("raised KeyError in step: 'price'", 'ownenv.py:{line}: def step(self, action): return {{}}["price"]'),
    "RaisesLater": ("raised ZeroDivisionError in step", "else 1 / 0"),
    "RaisesInNumpy": ("raised ValueError in step", "np.concatenate"),
    "RaisesAtReset": ("raised OSError in reset: no such port", "raise OSError"),
    "RaisesAtFirst": ("raised AttributeError in __init__", "self.ports[0]"),
    "Leaves": ("raised SystemExit in step", "raise SystemExit(3)"),
    "WrongShape": ("in reset", "shape (4,)"),
    "OneNumber": ("in reset", "shape ()"),
    "WrongShapeLater": ("in step", "shape (4,)"),
    "Nan": ("in reset", "nan in 1 of 3"),
    "NanLater": ("in step", "nan, 5 steps after reset(seed="),
    "NanReward": ("in step", "the reward is nan"),
    "ArrayReward": ("in step", "the reward is an array of float64 (1,)"),
    "NoInfo": ("in step", "info is a NoneType"),
    "Bytes": ("in reset", "observation_space says uint8"),
    "Text": ("in reset", "is a str"),
    "NotOne": ("is not a gymnasium.Env", "ownenv.NotOne"),
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with `ownenv.py` and a teacher in it, which is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("ownenv.py").write_text(MODULE)
    store.save(Path("teacher.safetensors"), replace(choose_teacher(8), env=None), {})
    yield tmp_path
    sys.modules.pop("ownenv", None)
    gymnasium.registry.pop("Own-v0", None)


BENCH = ("bench", "teacher.safetensors", "--episodes", "12", "--latency-budget", "0", "--linear-budget", "0")


@pytest.mark.parametrize(
    "words", [("ownenv:Own-v0",), ("ownenv:Own",), ("kdcli/Choose-v0", "--wrapper", "ownenv:Plain")]
)
def test_a_module_in_the_current_folder_is_found(here: Path, kdcli: Callable[..., Ran], words: tuple[str, ...]) -> None:
    """Law: an env or a wrapper in a file of the current folder is played, and a note says where it comes from."""
    ran = kdcli(*BENCH, "--env", *words)
    assert ran.code == 0, ran.err
    assert "taking the module ownenv from the current folder: ownenv.py" in ran.err


def test_no_file_takes_the_place_of_an_installed_module(here: Path, kdcli: Callable[..., Ran]) -> None:
    """Law: the current folder comes last: a file that is called as an installed module is not imported."""
    Path("scipy.py").write_text("raise SystemExit('imported')")
    Path("random.py").write_text("raise SystemExit('imported')")
    assert kdcli(*BENCH, "--env", "ownenv:Own-v0").code == 0
    ran = kdcli(*BENCH, "--env", "nowhere:Own-v0")
    assert (ran.code, "no module nowhere is installed or lies in the current folder" in ran.err) == (2, True)


def test_a_program_plays_the_users_own_env(here: Path, kdcli: Callable[..., Ran]) -> None:
    """Law: an ONNX file of somebody else's plays the env that the user names, be it code in a module."""
    net = torch.nn.Linear(3, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter that needs no other package is deprecated
        ends = {"input_names": ["obs"], "output_names": ["logits"], "dynamic_axes": {"obs": {0: "batch"}}}
        torch.onnx.export(net, (torch.zeros(1, 3),), "net.onnx", dynamo=False, **ends)
    own = ("--env", "ownenv:Own-v0", "--wrapper", "ownenv:Plain")
    for words in (
        ("inspect", "net.onnx"),
        ("rollout", "net.onnx", "-o", "data", "--steps", "40"),
        ("distill", "net.onnx", "-o", "s.safetensors", "--labels", "100", "--rounds", "1", "--updates", "5"),
        ("bench", "net.onnx", "s.safetensors", *BENCH[2:]),
        ("bench", "s.safetensors", *BENCH[2:]),
    ):
        ran = kdcli(*words, *own)
        assert ran.code in (0, 3), ran.err


@pytest.mark.parametrize("name", FAULTS)
def test_faults_of_the_env_are_the_envs(here: Path, kdcli: Callable[..., Ran], name: str) -> None:
    """Law: what the user's env raises, or gives that it must not, is a usage error that names env, method and line."""
    ran = kdcli(*BENCH, "--env", f"ownenv:{name}")
    assert ran.code == 2, ran.err
    what, why, fix = ran.err.splitlines()[-3:]
    assert f"ownenv:{name}" in what
    assert FAULTS[name][0] in what
    line = next((i for i, text in enumerate(MODULE.splitlines(), 1) if '{}["price"]' in text), 0)
    assert FAULTS[name][1].format(line=line) in why
    assert fix


LESSON = ("--labels", "100", "--rounds", "1", "--updates", "5")
PLAYING = {
    "rollout": ("-o", "data", "--steps", "40"),
    "distill": ("-o", "s.safetensors", *LESSON),
    "distill-many": ("teacher.safetensors", "-o", "many", *LESSON, "--student", "mlp:8x8"),
    "compress": ("-o", "run", "--budget", "10s"),
    "prune": (
        "-o",
        "p.safetensors",
        "--to",
        "nonzeros<=40",
        "--rounds",
        "1",
        "--recover",
        "5",
        "--labels",
        "100",
        "--states",
        "500",
    ),
    "quantize": ("-o", "q.safetensors", "--episodes", "12"),
    "export": ("-o", "policy.onnx"),
    "bench": BENCH[2:],
}


@pytest.mark.parametrize("verb", PLAYING)
def test_every_command_says_it_before_work_begins(here: Path, kdcli: Callable[..., Ran], verb: str) -> None:
    """Law: whichever command plays, a broken env is told by the first step, and nothing is written."""
    before = sorted(path.name for path in here.iterdir())
    ran = kdcli(verb, "teacher.safetensors", *PLAYING[verb], "--env", "ownenv:Four")
    assert (ran.code, "4 values" in ran.err) == (2, True), ran.err
    assert sorted(path.name for path in here.iterdir() if path.name != "__pycache__") == before


@pytest.mark.parametrize("verb", [verb for verb in PLAYING if verb != "compress"])
def test_a_single_simulator_suffices(here: Path, kdcli: Callable[..., Ran], verb: str) -> None:
    """Law: with --envs 1 no command has a second instance open; without, the error names that option."""
    words = (verb, "teacher.safetensors", *PLAYING[verb], "--env", "ownenv:Single")
    ran = kdcli(*words, "--envs", "1")
    assert ran.code in (0, 1, 3), ran.err
    import ownenv  # type: ignore[import-not-found]

    assert ownenv.Single.opened > 0
    ownenv.Single.alive = 0
    ran = kdcli(*words, "--force") if verb != "bench" else kdcli(*words)
    assert (ran.code, ran.err.splitlines()[-1]) == (2, "--envs 1 opens no more than one at a time, if it is that")


@pytest.mark.parametrize(("gate", "code"), [("success>=0.5", 0), ("success<0.2", 1), ("success>=0.99", 3)])
def test_success_is_a_rate_and_a_gate(here: Path, kdcli: Callable[..., Ran], gate: str, code: int) -> None:
    """Law: is_success at an episode's end becomes a rate with an interval, in table and record, and a gate."""
    own = ("--env", "ownenv:Own", "--gate", gate)
    ran = kdcli(*BENCH, *own)
    assert ran.code == code, ran.err
    assert "  success  " in ran.out
    record = json.loads(kdcli(*BENCH, *own, "--json").out)
    found = record["contenders"][0]["success"]
    assert (found["n"], found["rate"]) == (12, 1.0)
    assert 0.7 < found["low"] < found["high"] == 1.0
    assert record["random"]["success"]["rate"] < 0.8


def test_compress_asks_for_success_only_where_it_is_told(here: Path, kdcli: Callable[..., Ran]) -> None:
    """Law: --min-success is refused before work where the env tells none, and without it the command goes on."""
    ran = kdcli("compress", "teacher.safetensors", "-o", "run", "--env", "kdcli/Choose-v0", "--min-success", "0.5")
    assert (ran.code, ran.err.splitlines()[-1]) == (2, "leave --min-success out")
