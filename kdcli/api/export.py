"""`kdcli.export`: an agent as files for another runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdcli.api.result import Result
from kdcli.exporters.config import ExportConfig
from kdcli.options import build
from kdcli.progress import Listener, silent

if TYPE_CHECKING:
    from kdcli.agents.onnx.session import OnnxAgent
    from kdcli.exporters.step import Exported


def check(config: ExportConfig) -> None:
    """Say all that can be said before work begins.

    Raises:
        UsageError: there is no such format.
    """
    from kdcli.exporters import EXPORTERS

    if config.format != "auto":
        EXPORTERS.load(config.format)


def export(
    agent: Any, output: Path | str | None = None, *, force: bool = False, progress: Listener = silent, **options: Any
) -> ExportResult:
    """Write an agent for another runtime: raw observation in, action for `env.step` out.

    Before a file appears, it is compared with the agent on states of the agent's own play.

    Args:
        agent: A path, a kdcli agent, or a Stable-Baselines3 model.
        output: Where to write; its suffix names the format (`.onnx`, `.c`, `.npz`, `.pt`, `.pt2`). None: the result
            holds the files.
        force: Overwrite `output`.
        progress: Called with `kdcli.progress.Event` and `Note`.
        **options: Fields of `kdcli.exporters.config.ExportConfig` and `kdcli.checkpoints.config.LoadConfig`.

    Raises:
        UsageError: an output the agent does not have, an unknown opset, or a file that cannot be written.
        RefusedError: the files would not act as the agent does.
    """
    from kdcli import artifact
    from kdcli.api.agents import find_whole
    from kdcli.api.envs import with_env_id
    from kdcli.checkpoints.config import LoadConfig
    from kdcli.exporters.states import gather, played
    from kdcli.exporters.step import convert, resolved, stem_of

    source, config = build(with_env_id(options), LoadConfig, ExportConfig)
    check(config)
    if output is not None:
        output = Path(output)
        config = resolved(config, output)
        artifact.refuse_existing(output, force)
    found = find_whole(agent, source, progress)
    # An env that the caller names must be the right one; one that a file names may be gone or not installed.
    play = played(found.agent, config.states, config.seed) if source.env else None
    states = play or gather(found.agent, config.states, config.seed, progress)
    made = convert(found.agent, states, config, found.parents, "policy" if output is None else stem_of(output))
    if output is not None:
        made.save(output, force)
    return ExportResult(made, output)


@dataclass(frozen=True, eq=False, repr=False)
class ExportResult(Result):
    """Checked files: `exported.files` maps suffix to bytes, `path` says where they are, if they were written."""

    exported: Exported
    path: Path | None

    @property
    def agent(self) -> OnnxAgent:
        """The exported ONNX file as an agent.

        Raises:
            KeyError: another format.
        """
        return self.exported.agent

    def save(self, path: Path | str, force: bool = False) -> Path:
        """Write every file, the one at `path` last.

        Raises:
            UsageError: one exists (without `force`) or cannot be written.
        """
        return self.exported.save(Path(path), force)

    def summary(self) -> dict[str, Any]:
        """Format, inputs, outputs, sizes, sha256 and parity, as JSON values."""
        return self.exported.summary()

    def facts(self) -> Mapping[str, Any]:
        """Format, parameters, bytes, and on how many states it acts as the agent does."""
        told = self.summary()
        alike = told["parity"]["n_states"]
        facts = {"format": told["format"], "params": told["n_params"], "bytes": told["size_bytes"], "same_on": alike}
        return facts if self.path is None else {**facts, "path": self.path}
