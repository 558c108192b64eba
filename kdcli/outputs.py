"""What was made with other options than are asked for now: neither kept silently nor lost."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ValidationError

from kdcli.errors import RefusedError
from kdcli.files import MAX_RECORDS, read_json
from kdcli.spec import Json


def options_changed(now: BaseModel, then: Json) -> list[str]:
    """`labels 1000 -> 2000` for each option that differs from the record `then`.

    An option that kdcli did not have then counts as its default.
    """
    asked, defaults = now.model_dump(mode="json"), type(now)().model_dump(mode="json")
    before = {key: then.get(key, defaults[key]) for key in asked}
    return [f"{key} {before[key]} -> {value}" for key, value in asked.items() if before[key] != value]


def checked(file: Path, model: type[BaseModel], fix: str) -> Json:
    """The JSON object in `file`, a record that `model` describes.

    Raises:
        RefusedError: it is another.
    """
    try:
        found = read_json(file, MAX_RECORDS)
        model.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise RefusedError(f"{file} is damaged", f"{place}: {first['msg']}" if place else first["msg"], fix) from None
    except ValueError as error:
        raise RefusedError(f"{file} is damaged", str(error)[:200], fix) from None
    return found
