"""Commands that misbehave in one way each. Run as a script, this file is kdcli with these commands added."""

from __future__ import annotations

import errno
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import BaseModel, ConfigDict, Field, model_validator

from kdcli.artifact import atomic
from kdcli.cli.commands import COMMANDS
from kdcli.cli.console import Console
from kdcli.cli.main import main
from kdcli.cli.options import AsJson, Force, Output, command
from kdcli.durations import Duration
from kdcli.errors import Exit, RefusedError
from kdcli.progress import Event, Note


class TuneConfig(BaseModel):
    """One field of each kind that an option can hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    env: str = Field(description="Where to play.")
    n_steps: int = Field(10, gt=0, description="How long, in [steps].")
    rate: float = Field(3e-4, description="How fast.")
    layers: tuple[int, ...] = Field((64, 32), description="How wide.")
    tags: tuple[str, ...] = Field((), description="What to call it.")
    loss: Literal["kl", "mse"] = Field("kl", description="How far off.")
    bits: Literal[4, 8] = Field(8, description="How fine.")
    budget: Duration = Field(300.0, description="How much time.")
    patience: Duration | None = Field(None, description="How much more.")
    cache: Path | None = Field(None, description="Where to keep it.")
    shuffle: bool = Field(True, description="Whether to mix.")
    seed: int = Field(0, description="Where chance starts.")

    @model_validator(mode="after")
    def _fits(self) -> TuneConfig:
        if self.seed == 13:
            raise ValueError("seed 13 is out of the question")
        return self


@command
def tune(
    teacher: Annotated[Path, typer.Argument(help="Who teaches.")], config: TuneConfig, *, console: Console
) -> None:
    """Answer with the config."""
    console.answer_json("fake.tune/1", {"teacher": str(teacher), **config.model_dump(mode="json")})


@command
def end(how: str, *, console: Console) -> int:
    """End in the way that is asked for."""
    errors: dict[str, BaseException] = {
        "refused": RefusedError("x.zip is corrupt", "its digest differs", "copy it again"),
        "bug": ZeroDivisionError("division by\nzero"),
        "memory": MemoryError("8 GB"),
        "full": OSError(errno.ENOSPC, "No space left on device", "student.onnx"),
        "denied": PermissionError(errno.EACCES, "Permission denied", "student.onnx"),
        "worker": BrokenPipeError(errno.EPIPE, "Broken pipe"),
        "missing": ModuleNotFoundError("No module named 'minari'", name="minari"),
        "escape": RefusedError("a tensor called \x1b[31mred\x1b[0m\x07 and\nmore"),
        "exit": SystemExit(1),
        "interrupt": KeyboardInterrupt(),
    }
    if how in errors:
        raise errors[how]
    return {"gate": Exit.GATE_FAILED, "undecided": Exit.UNDECIDED}.get(how, Exit.DONE)


@command
def stray(*, console: Console) -> None:
    """A library prints, warns and reports; only the answer is the answer."""
    print("Hello from a library")
    warnings.warn("\x1b[33mold\nstyle\x1b[0m", stacklevel=2)
    console.listener(Note("took the small one"))
    for done in range(3):
        console.listener(Event("play", done + 1, 3, {"return": 1.5, "kind": "x"}))
    console.answer("student.safetensors")


@command
def slow(*, output: Output, force: Force = False, console: Console) -> None:
    """Be half through an output for a minute."""
    with atomic(output, force) as temporary:
        temporary.write_text("half")
        console.listener(Note("half-way"))
        time.sleep(60)


@command
def flood(*, as_json: AsJson = False, console: Console) -> None:
    """Answer more than a pipe holds, in one document."""
    rows = [("agent", "latency_us")] + [(f"student-{n}-{'long' * 40}", n / 7) for n in range(3000)]
    if as_json:
        console.answer_json("fake.flood/1", {"rows": rows, "correlation": float("nan")})
    else:
        console.table(("name", "latency_us"), rows[1:])


def table() -> dict[str, Any]:
    """Rows for the table of commands."""
    return {
        name: (f"fake_commands:{name}", f"Fake {name}.") for name in ("tune", "end", "stray", "slow", "flood", "absent")
    }


if __name__ == "__main__":
    COMMANDS.update(table())
    # Tests that run in the background ignore SIGINT, and so would this program.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
