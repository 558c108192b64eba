"""What a recipe's file says, and what is said to it: given values in place of `{name}`, options of steps."""

from __future__ import annotations

import re
import reprlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from kdcli.errors import UsageError, option, unknown
from kdcli.toml_config import Name, built, parse_toml, read_toml

BUILTIN = Path(__file__).parent / "builtin"
_PLACE = re.compile(r"\{(\w+)\}")
Value = str | int | float | bool


class Given(BaseModel):
    """A value that a recipe is given; required without a default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    help: str = Field(description="what it is")
    default: Value | None = Field(None, description="what it is where nothing else is said")


class Recipe(BaseModel):
    """A chain of steps. In their values `{name}` stands for a given one; `@name` is what an earlier step made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    about: str = Field(description="what it does, in a line")
    given: dict[Name, Given] = Field({}, description="what it is given")
    step: tuple[dict[str, Any], ...] = Field(min_length=1, description="the steps, in their order")


@dataclass(frozen=True)
class ResolvedRecipe:
    """A recipe with all that was said to it: the steps' tables, and the given values that are still open."""

    name: str
    recipe: Recipe
    steps: tuple[dict[str, Any], ...]
    open: tuple[str, ...]


def builtins() -> dict[str, Path]:
    """The recipes that kdcli brings along, by name."""
    return {file.stem: file for file in sorted(BUILTIN.glob("*.toml"))}


def find_recipe(name: str) -> Path:
    """A recipe's file: a path, or the name of one that kdcli brings along.

    Raises:
        UsageError: there is none.
    """
    path = Path(name)
    if path.exists() and not path.is_dir():
        return path
    if name in builtins():
        return builtins()[name]
    if path.suffix == ".toml":
        raise UsageError(f"{name} is not a file", "it does not exist", "check the path, or see: kdcli recipes list")
    raise unknown("recipe", name, builtins())


def read_recipe(path: Path) -> Recipe:
    """The recipe in a file.

    Raises:
        UsageError: it cannot be read, or is none.
    """
    return built(Recipe, read_toml(path), path.name)


def resolve(name: str, recipe: Recipe, said: Sequence[str] = ()) -> ResolvedRecipe:
    """The recipe with `said`: `teacher=agent.zip` is a given value, `student.labels=1000` an option of a step.

    Raises:
        UsageError: there is no such value or step, or a step has no name of its own.
    """
    steps = {step["name"]: step for step in _named(recipe.step)}
    if len(steps) < len(recipe.step):
        raise UsageError("two steps have the same name", "each needs its own", 'add name = "..."')
    values = {key: given.default for key, given in recipe.given.items() if given.default is not None}
    for key, value in map(_parse, said):
        step, dot, option = key.partition(".")
        if not dot and key in recipe.given:
            values[key] = value
        elif dot and step in steps:
            steps[step] = {**steps[step], option: value}
        else:
            what, known = ("step", list(steps)) if dot else ("value to give:", list(recipe.given))
            raise unknown(what, step, known)
    filled = tuple(_filled(step, values, recipe.given) for step in steps.values())
    used = {place for step in filled for value in _texts(step) for place in _PLACE.findall(value)}
    return ResolvedRecipe(name, recipe, filled, tuple(sorted(used)))


def _named(steps: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each with a name: that of what it does, where it has none of its own."""
    named = [{"name": str(step.get("do", "")), **step} for step in steps]
    if odd := next((step for step in named if not isinstance(step["name"], str)), None):
        raise UsageError(f"a step's name cannot be {reprlib.repr(odd['name'])}", "it is no text", 'write name = "..."')
    return named


def _parse(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        fix = f"give {option('set', 'teacher=agent.zip')}"
        raise UsageError(f"cannot read {text}", "it is a name and a value", fix)
    try:
        return key.strip(), parse_toml(f"value = {value}", f"the value of {key}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def _filled(value: Any, values: Mapping[str, Any], known: Mapping[str, Given]) -> Any:
    """`value` with given values in their places; a place that is the whole text keeps the value's type."""
    if isinstance(value, Mapping):
        return {key: _filled(inner, values, known) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(inner, values, known) for inner in value]
    if not isinstance(value, str):
        return value
    for place in _PLACE.findall(value):
        if place not in known:
            raise unknown("value to give:", place, known)
    if (whole := _PLACE.fullmatch(value)) and whole[1] in values:
        return values[whole[1]]
    return _PLACE.sub(lambda found: str(values.get(found[1], found[0])), value)


def _texts(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [text for inner in value for text in _texts(inner)]
    return [value] if isinstance(value, str) else []
