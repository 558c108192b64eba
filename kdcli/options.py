"""Keyword arguments and tables to configs: one place where a name or a value is refused by the name of its option."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from kdcli.errors import UsageError, option, unknown

Config = TypeVar("Config", bound=BaseModel)
Schema = Mapping[str, Any]


def build(values: Mapping[str, Any], *models: type[BaseModel]) -> tuple[Any, ...]:
    """One config of each model, from the `values` that are its fields; None means not given.

    A number will do where text is expected (tau=4), and one text for a tuple of one (loss="kl").

    Raises:
        UsageError: a name that no model has, one that is missing, or a value that does not fit.
    """
    known = [name for model in models for name in model.model_fields]
    for name in values:
        if name not in known:
            raise unknown("option", name, known)
    return tuple(_one(values, model) for model in models)


def given(*configs: BaseModel) -> dict[str, Any]:
    """The fields that were set, as the keyword arguments that build the same configs again."""
    return {name: getattr(config, name) for config in configs for name in config.model_fields_set}


def typed(schema: Schema, value: Any) -> Any:
    """`value` as the field of a JSON `schema` takes it: text for a number, a list of one for one text."""
    kinds = {branch.get("type") for branch in schema.get("anyOf", [schema])}
    if "string" in kinds and "number" not in kinds and isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:g}" if isinstance(value, float) else str(value)
    return [value] if "array" in kinds and isinstance(value, str) else value


def _one(values: Mapping[str, Any], model: type[Config]) -> Config:
    schema = model.model_json_schema()["properties"]
    own = {name: typed(schema[name], values[name]) for name in schema if values.get(name) is not None}
    try:
        return model.model_validate(own)
    except ValidationError as error:
        raise refused(error) from None


def refused(error: ValidationError) -> UsageError:
    """The first complaint of a config, by the name of its option."""
    first = error.errors(include_url=False)[0]
    why = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return UsageError("these options do not go together", why, "change one of them")
    name = option(str(first["loc"][0]))
    if first["type"] == "missing":
        return UsageError(f"missing option {name}", why, f"give {name}")
    if names := re.findall(r"'([^']*)'", first.get("ctx", {}).get("expected", "")):
        return unknown(f"value for {name}:", str(first["input"]), names)
    return UsageError(f"invalid value for {name}: {reprlib.repr(first['input'])}", why, f"correct {name}")
