"""What a kind of step promises: what it takes, which options it has, what it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel

from kdcli.progress import Listener
from kdcli.spec import Json

Config = TypeVar("Config", bound=BaseModel)
# Inputs by name before anything runs: their files, None for one that an earlier step will make.
Inputs = Mapping[str, tuple[Path | None, ...]]
Thing = Literal["checkpoint", "agent", "policy", "dataset", "report", "students"]


@dataclass(frozen=True)
class Take:
    """What an input may be, from an earlier step or as a file; `many`: one or several of them."""

    of: tuple[Thing, ...]
    many: bool = False
    required: bool = True


@dataclass(frozen=True)
class Job:
    """One step to be done: files in, by the name of the input; the options; where the output goes, which is not there.

    `options` is of the kind's `config`.
    """

    inputs: Mapping[str, tuple[Path, ...]]
    options: Any
    output: Path
    listener: Listener

    def one(self, name: str) -> Path | None:
        """The file of an input that is one, or None where it is not given."""
        return next(iter(self.inputs.get(name, ())), None)


@dataclass(frozen=True)
class Kind:
    """A kind of step.

    Attributes:
        gives: what its output is.
        takes: name -> input.
        config: the model of its options, each with a default.
        suffix: of its output's name, by the options; empty for a folder.
        check: all that can be said beforehand about options and inputs. Raises UsageError.
        make: does it -> what is worth knowing, as JSON values; `verdicts` there are passed, failed or undecided.
    """

    gives: Thing
    takes: Mapping[str, Take]
    config: type[BaseModel]
    suffix: Callable[[Any], str]
    check: Callable[[Any, Inputs], None]
    make: Callable[[Job], Json]


def files_of(files: tuple[Path | None, ...]) -> list[Path]:
    """The files of an input, if all are there already."""
    return [file for file in files if file is not None] if None not in files else []


def part(options: BaseModel, model: type[Config]) -> Config:
    """The options of one stage among those of a step that joins several."""
    return model(**{name: getattr(options, name) for name in model.model_fields})
