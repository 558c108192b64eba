"""Any file -> Agent, known by its content and not by its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kdcli.checkpoints import FORMATS
from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.sniff import sniff
from kdcli.errors import RefusedError, UsageError
from kdcli.files import is_file, whatever_it_says
from kdcli.progress import Listener, Note, silent

if TYPE_CHECKING:
    from kdcli.agents.agent import Agent
    from kdcli.agents.onnx.session import OnnxAgent

__all__ = ["find_file", "native", "onnx", "read", "read_any", "sniff", "whatever_it_says"]

# What a folder may hold beside its checkpoint: RL Zoo's evaluations on the Hub, and a run's records.
_NO_CHECKPOINTS = ("train_eval_metrics.zip", "_last_sys_info.zip")
_SUFFIXES = (".zip", ".cleanrl_model", ".d3", ".pt", ".pth", ".safetensors", ".onnx", ".pt2")


def read(path: Path | str, config: LoadConfig | None = None, listen: Listener = silent) -> Agent:
    """The agent in the file, or the folder, at `path`.

    Raises:
        UsageError: the file cannot be opened, or an option does not fit it.
        RefusedError: it is damaged, unsafe, or of a kind that cannot be read as an agent.
    """
    from kdcli.agents.agent import Agent

    agent = read_any(path, config, listen)
    if not isinstance(agent, Agent):
        why = "an exported file can be run and compared, not taken apart again"
        raise RefusedError(f"{path} is an export", why, "give the agent file or checkpoint it was made from")
    return agent


def read_any(path: Path | str, config: LoadConfig | None = None, listen: Listener = silent) -> Agent | OnnxAgent:
    """Whatever acts in the file, or the folder, at `path`: an agent, an exported policy, or a black box.

    Raises:
        UsageError: the file cannot be opened, or an option does not fit it or is missing.
        RefusedError: it is damaged, unsafe, or of a kind not read yet.
    """
    file, config = find_file(Path(path)), config or LoadConfig()
    kind = sniff(file)
    _refuse_unused(file, kind, config)
    _tell_modules(config, listen)
    with whatever_it_says(file):
        agent: Agent | OnnxAgent = FORMATS.load(kind)(file, config, listen)
    if config.envs == 1 and agent.env is not None:
        return replace(agent, env=replace(agent.env, alone=True))
    return agent


def _tell_modules(config: LoadConfig, listen: Listener) -> None:
    """Look in the current folder for modules that the user named and that are not installed, and say so."""
    from kdcli.envs import WRAPPERS
    from kdcli.modules import reach
    from kdcli.said import refuse_unsaid
    from kdcli.spec import EnvSpec

    named = EnvSpec(config.env or "", wrappers=config.wrappers()).modules(WRAPPERS.table)
    refuse_unsaid(named)  # a study or a recipe may have named them
    for name in named:
        module = name.removeprefix("pettingzoo:").partition(":")[0]
        if (found := reach(module)) is not None:
            listen(Note(f"taking the module {module} from the current folder: {found.name}"))


# What a kind of file is told beside its env; kdcli's own files stand beside others that are, and need nothing.
_PROGRAM = ("signal", "output_name")
_TOLD = {
    "sb3": ("activation", "critics"),
    "sb3_policy": (),
    "cleanrl": ("activation", "obs_stats"),
    "rsl_rl": ("activation", "obs_stats", "signal"),
    "skrl": ("activation", "obs_stats", "squash"),
    "d3rlpy": (),
    "card": ("obs_stats",),
    "onnx_policy": _PROGRAM,
    "torchscript": _PROGRAM,
    "torch_export": _PROGRAM,
}


def _refuse_unused(file: Path, kind: str, config: LoadConfig) -> None:
    """Raise UsageError for an option that says nothing about this kind of file: it was meant for another."""
    for name in ("activation", "obs_stats", "squash", "signal", "output_name", "critics"):
        if kind in _TOLD and name not in _TOLD[kind] and getattr(config, name) not in (None, False):
            option = f"--{name.replace('_', '-')}"
            what = f"{option} says nothing about {file.name}"
            raise UsageError(what, f"it is read as {kind}, which tells that itself or has none", "leave it out")


def find_file(path: Path) -> Path:
    """`path` itself, or the checkpoint in the folder at `path`.

    Raises:
        UsageError: it does not exist, or the folder has none or several.
    """
    if not path.exists():  # Stable-Baselines3 takes a name without its suffix, too
        path = path.with_name(f"{path.name}.zip") if path.name else path
    if path.exists() and not path.is_dir():  # what is no regular file is refused where it is opened
        return path
    if not path.is_dir():
        raise UsageError(f"{str(path).removesuffix('.zip')} is not a file", "it does not exist", "check the path")
    found = sorted(_checkpoints(path))
    named = [file for file in found if file.with_suffix("").is_dir() or file.stem == path.resolve().name] or found
    if len(named) != 1:
        names = ", ".join(file.name for file in found[:6]) + (", ..." if len(found) > 6 else "")
        raise UsageError(f"{path} is a folder", f"it holds {names or 'no checkpoint'}", "name the file to read")
    return named[0]


def _checkpoints(folder: Path) -> Iterator[Path]:
    """Files that may be checkpoints: zips first, and other kinds where there is none."""
    files = [file for file in folder.iterdir() if is_file(file) and file.name not in _NO_CHECKPOINTS]
    zips = [file for file in files if file.suffix == ".zip"]
    yield from zips or (file for file in files if file.suffix in _SUFFIXES)


def native(path: Path, config: LoadConfig, listen: Listener) -> Agent:
    """An agent file of kdcli.

    Raises:
        UsageError: statistics are named, but it has its own.
        RefusedError: it is damaged.
    """
    from kdcli.agents.store import load
    from kdcli.checkpoints.sb3.zoo import asked_env

    agent = load(path)
    if not isinstance(agent.facts, Mapping):
        raise RefusedError(f"{path} does not describe an agent", "its facts are not names with values", "make it again")
    if config.vecnormalize not in ("auto", "none"):
        raise UsageError(f"{path.name} has its own statistics", "an agent file is complete", "leave --vecnormalize out")
    return replace(agent, env=asked_env(config, agent, listen))


def onnx(path: Path, config: LoadConfig, listen: Listener) -> OnnxAgent:
    """A policy exported by kdcli, run by onnxruntime; what was edited since is said.

    Raises:
        RefusedError: it is damaged, or has other weights than it was exported with.
    """
    from kdcli.agents.onnx.session import load
    from kdcli.checkpoints.sb3.zoo import asked_env

    agent = load(path)
    if agent.edits:
        listen(Note(f"{path.name} was edited since its export: {'; '.join(agent.edits)}"))
    return replace(agent, env=asked_env(config, agent, listen))
