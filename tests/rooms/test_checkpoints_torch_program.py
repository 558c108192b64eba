"""TorchScript and torch.export programs, where they are trusted."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign import VECTOR, Where, mlp, observations, out, stirred
from foreign import here as here
from foreign import where as where
from sample_policies import POLICIES
from torch import Tensor, nn

from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.files import inspect
from kdcli.checkpoints.read import read_any, sniff
from kdcli.errors import RefusedError, UsageError
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.step import export
from kdcli.spec import Discrete

pytestmark = pytest.mark.usefixtures("here")
KINDS = ("torchscript", "torch_export", "torch_export, one row")


def program(kind: str, module: nn.Module, folder: Path) -> Path:
    """The module as a file that another runtime loads."""
    path, rows = folder / "policy.bin", 1 if "one row" in kind else 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "torchscript":
            torch.jit.script(module).save(str(path))
        else:
            shapes = None if "one row" in kind else ({0: torch.export.Dim("batch")},)
            made = torch.export.export(module, (torch.zeros(rows, 7),), dynamic_shapes=shapes)
            with path.open("wb") as handle:
                torch.export.save(made, handle)
    assert sniff(path) == kind.partition(",")[0]
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_a_program_acts(kind: str, tmp_path: Path, where: Where) -> None:
    """Law: a trusted program acts as the module it was made from, for any batch."""
    where(VECTOR, Discrete(4))
    module = stirred(mlp(7, 16, 4))
    agent = read_any(program(kind, module, tmp_path), LoadConfig(env="Some-v0", trust=True, signal="q"))
    obs = observations(VECTOR)
    np.testing.assert_array_equal(agent.act(obs), out(module, obs).argmax(1))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_loaded_without_trust(
    kind: str, tmp_path: Path, where: Where, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: without --trust no program is loaded, neither to read nor to inspect it."""
    where(VECTOR, Discrete(4))
    path = program(kind, mlp(7, 16, 4), tmp_path)

    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("it was loaded")

    monkeypatch.setattr(torch.jit, "load", load)
    monkeypatch.setattr(torch.export, "load", load)
    for work in (read_any, inspect):
        with pytest.raises(RefusedError, match="without being trusted") as raised:
            work(path, LoadConfig(env="Some-v0", signal="q"))
        assert "--trust" in raised.value.fix


def test_what_it_puts_out_is_asked_for(tmp_path: Path, where: Where) -> None:
    """Law: what outputs are is asked for by name; so is the env."""
    where(VECTOR, Discrete(4))
    path = program("torchscript", mlp(7, 16, 4), tmp_path)
    with pytest.raises(UsageError, match="what it puts out"):
        read_any(path, LoadConfig(env="Some-v0", trust=True))
    with pytest.raises(UsageError, match="does not say what it observes"):
        read_any(path, LoadConfig(trust=True, signal="q"))


class Remembers(nn.Module):
    """Keeps a state inside, as programs of robots do."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("h", torch.zeros(1, 7))
        self.last = nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.h[:] = 0.5 * self.h + x
        return self.last(self.h)


class Two(nn.Module):
    """Two outputs, and a branch that depends on what is seen."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(7, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.last(x)
        return y, -y


def test_memory_inside_is_refused(tmp_path: Path, where: Where) -> None:
    """Law: a program that answers the same question differently is refused: its state could not be reset."""
    where(VECTOR, Discrete(4))
    path = program("torchscript", Remembers(), tmp_path)
    with pytest.raises(RefusedError) as raised:
        read_any(path, LoadConfig(env="Some-v0", trust=True, signal="q"))
    assert "memory" in raised.value.why


def test_several_outputs(tmp_path: Path, where: Where) -> None:
    """Law: of several outputs, one is named by its place."""
    where(VECTOR, Discrete(4))
    module = stirred(Two())
    said = LoadConfig(env="Some-v0", trust=True, signal="q", output_name="output_1")
    agent = read_any(program("torchscript", module, tmp_path), said)
    obs = observations(VECTOR)
    np.testing.assert_array_equal(agent.act(obs), module(torch.from_numpy(obs))[1].argmax(1).numpy())


def test_another_env(tmp_path: Path, where: Where) -> None:
    """Law: an env that the program cannot take is refused, with what torch says of it."""
    from kdcli.spec import box

    where(box((8,)), Discrete(4))
    with pytest.raises(RefusedError, match="does not take"):
        read_any(program("torchscript", mlp(7, 16, 4), tmp_path), LoadConfig(env="Some-v0", trust=True, signal="q"))


@pytest.mark.parametrize("name", ["discrete_start", "sees_normalized", "tanh"])
@pytest.mark.parametrize("suffix", ["pt", "pt2"])
def test_our_own_programs(name: str, suffix: str, tmp_path: Path) -> None:
    """Law: a program that kdcli exported tells its spaces; it is inspected without being run."""
    from sample_policies import observations as seen

    agent, path = POLICIES[name](), tmp_path / f"policy.{suffix}"
    export(agent, path, None, ExportConfig(states=50))
    obs = seen(agent, 50)
    again = read_any(path, LoadConfig(trust=True))
    np.testing.assert_allclose(again.act(obs), agent.act(obs), atol=1e-5)
    told = inspect(path)
    assert (told["observation"], told["contract"]["outputs"][0]["name"]) == (str(agent.observation), "action")
