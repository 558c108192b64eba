"""Settings from a TOML file, checked before anything runs; what is wrong is said under the name of its key."""

from __future__ import annotations

import os
import re
import reprlib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, StringConstraints, ValidationError

from kdcli.errors import RefusedError, UsageError, unknown
from kdcli.files import MAX_TOML, read_bytes, refuse_deep, too_deep

MAX_DOTS = 256
Model = TypeVar("Model", bound=BaseModel)
Schema = Mapping[str, Any]
# Names are part of file names.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][\w.+=@,-]*$", max_length=80)]


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        UsageError: it cannot be read, or is not TOML.
        RefusedError: it is no regular file, or larger, deeper or with longer keys than any such file.
    """
    content = read_bytes(path, MAX_TOML)
    try:
        return parse_toml(content.decode(), path.name)
    except ValueError as error:  # TOMLDecodeError, UnicodeDecodeError
        raise UsageError(f"{path} is not TOML", str(error), "see https://toml.io for how it is written") from None


def parse_toml(text: str, name: str) -> dict[str, Any]:
    """The tables in a text, which errors call `name`.

    Raises:
        RefusedError: keys of more parts than any has, or values nested without end.
        ValueError: it is not TOML.
    """
    # Python's reader takes time with the square of a key's parts, which stand in one line.
    if any(line.count(".") > MAX_DOTS for line in text.splitlines()):
        raise RefusedError(f"{name} has a line with more than {MAX_DOTS} dots", "no key has as many parts", "break it")
    try:
        found = tomllib.loads(text)
    except RecursionError:
        raise too_deep(name) from None
    refuse_deep(found, name)
    return found


def built(model: type[Model], values: Mapping[str, Any], where: str) -> Model:
    """`model` from the `values` of a table, which an error calls `where`.

    A number will do where text is expected (tau = 4), and one text for a list of one (loss = "kl").

    Raises:
        UsageError: an unknown key, a missing one, or a value that does not fit.
    """
    fields = model.model_json_schema()["properties"]
    try:
        return model.model_validate({key: _typed(fields.get(key, {}), value) for key, value in values.items()})
    except ValidationError as error:
        raise _explain(error, model, where) from None


def _typed(schema: Schema, value: Any) -> Any:
    kinds = {branch.get("type") for branch in schema.get("anyOf", [schema])}
    if "string" in kinds and "number" not in kinds and isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:g}" if isinstance(value, float) else str(value)
    return [value] if "array" in kinds and isinstance(value, str) else value


def _explain(error: ValidationError, model: type[BaseModel], where: str) -> UsageError:
    # A misspelt key is missing under its name, too: what was written is said first.
    first = min(error.errors(include_url=False), key=lambda found: found["type"] != "extra_forbidden")
    loc, why = first["loc"], first["msg"].removeprefix("Value error, ")
    key = ".".join(map(str, loc))
    if first["type"] == "extra_forbidden":
        return unknown(f"key in {_place(where, loc[:-1])}:", str(loc[-1]), _keys(model.model_json_schema(), loc[:-1]))
    if first["type"] == "missing":
        return UsageError(f"{_place(where, loc[:-1])} lacks the key {str(loc[-1])!r}", why, f"add {loc[-1]} = ...")
    if names := re.findall(r"'([^']*)'", first.get("ctx", {}).get("expected", "")):
        return unknown(f"value for {key} in {where}:", str(first["input"]), names)
    return UsageError(f"{where}: {key or 'this'} cannot be {reprlib.repr(first['input'])}", why, "correct it")


def _place(where: str, loc: Sequence[int | str]) -> str:
    """`study.toml, axis 2`: tables are counted from 1."""
    inside = " ".join(str(part + 1) if isinstance(part, int) else part for part in loc)
    return f"{where}, {inside}" if inside else where


def _keys(schema: Schema, loc: Sequence[int | str]) -> list[str]:
    """The keys of the table at `loc` in a model's JSON schema."""
    node: dict[str, Any] = dict(schema)
    for part in loc:
        # A table of names that the user chooses has the same keys under each of them.
        named = [*node.get("patternProperties", {}).values(), {}]
        node = node["items"] if isinstance(part, int) else node.get("properties", {}).get(part, named[0])
        node = next((branch for branch in node.get("anyOf", ()) if "$ref" in branch), node)
        node = schema["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node
    return list(node.get("properties", ()))


def path_of(text: str) -> Path:
    """A path as a file of settings gives it: from where kdcli is run; `$NAME` is a variable of the environment.

    Raises:
        UsageError: a variable is not set.
    """
    if missing := [name for name in re.findall(r"\$\{?(\w+)", text) if name not in os.environ]:
        raise UsageError(f"cannot find {text}", f"the variable {missing[0]} is not set", f"export {missing[0]}=...")
    return Path(os.path.expandvars(text)).expanduser()
