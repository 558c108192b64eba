"""Any file -> Agent, known by its content and not by its name."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kdcli import artifact
from kdcli.checkpoints import FORMATS
from kdcli.checkpoints.config import LoadConfig
from kdcli.errors import RefusedError, UsageError
from kdcli.progress import Listener, silent

if TYPE_CHECKING:
    from kdcli.agents.agent import Agent
    from kdcli.agents.runtime import OnnxAgent

_KNOWN = "known: a Stable-Baselines3 zip, an agent file and an ONNX file of kdcli"


def read(path: Path | str, config: LoadConfig | None = None, listen: Listener = silent) -> Agent:
    """The agent in the file, or the RL Zoo folder, at `path`.

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
    """Whatever acts in the file, or the RL Zoo folder, at `path`: an agent, or an exported policy.

    Raises:
        UsageError: the file cannot be opened, or an option does not fit it.
        RefusedError: it is damaged, unsafe, or of a kind not read yet.
    """
    file = find_file(Path(path))
    return FORMATS.load(sniff(file))(file, config or LoadConfig(), listen)


def find_file(path: Path) -> Path:
    """`path` itself, or the checkpoint in the folder at `path`.

    Raises:
        UsageError: it does not exist, or the folder has none or several.
    """
    if not path.exists():  # Stable-Baselines3 takes a name without its suffix, too
        path = path.with_name(f"{path.name}.zip") if path.name else path
    if path.is_file():
        return path
    if not path.is_dir():
        raise UsageError(f"{str(path).removesuffix('.zip')} is not a file", "it does not exist", "check the path")
    found = sorted(path.glob("*.zip"))
    named = [file for file in found if file.with_suffix("").is_dir()] or found
    if len(named) != 1:
        names = ", ".join(file.name for file in found) or "no zip"
        raise UsageError(f"{path} is a folder", f"it holds {names}", "name the file to read")
    return named[0]


def sniff(path: Path) -> str:
    """The name of the file's format.

    Raises:
        UsageError: the file cannot be opened.
        RefusedError: none kdcli reads.
    """
    try:
        with path.open("rb") as handle:
            head = handle.read(16)
    except OSError as error:
        raise UsageError(f"cannot read {path}", error.strerror or str(error), "check the path") from None
    if head[:2] == b"PK":
        return _sniff_zip(path)
    if artifact.is_ours(path):
        return "native"
    if head[:1] == b"\x08":  # an ONNX file begins with its version
        return "onnx"
    raise _refusal(path, head)


def _sniff_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    except Exception:
        return "sb3"  # its reader says what is wrong with it
    if any(name.endswith("data.pkl") for name in names):
        raise RefusedError(f"{path.name} is a PyTorch file", "it does not say what its weights mean", _KNOWN)
    if "data" not in names:
        raise RefusedError(f"{path.name} is a zip without Stable-Baselines3's members", _KNOWN, "give the saved model")
    return "sb3"


def _refusal(path: Path, head: bytes) -> RefusedError:
    if not head:
        return RefusedError(f"{path.name} is empty", "", "copy it again")
    if head[:1] == b"\x80":
        fix = "give the zip, and this file with --vecnormalize"
        return RefusedError(f"{path.name} is a bare pickle", "statistics alone are not an agent", fix)
    return RefusedError(f"{path.name} is of no kind kdcli reads", _KNOWN, "")


def native(path: Path, config: LoadConfig, _: Listener) -> Agent:
    """An agent file of kdcli.

    Raises:
        UsageError: statistics are named, but it has its own.
        RefusedError: it is damaged.
    """
    from kdcli.agents.store import load

    agent, env = load(path), config.named_env()
    if config.vecnormalize not in ("auto", "none"):
        raise UsageError(f"{path.name} has its own statistics", "an agent file is complete", "leave --vecnormalize out")
    return agent if env is None else replace(agent, env=env)


def onnx(path: Path, config: LoadConfig, _: Listener) -> OnnxAgent:
    """A policy exported by kdcli, run by onnxruntime.

    Raises:
        RefusedError: it is damaged, or not exported by kdcli.
    """
    from kdcli.agents.runtime import load

    agent, env = load(path), config.named_env()
    return agent if env is None else replace(agent, env=env)
