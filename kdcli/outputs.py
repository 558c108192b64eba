"""What was made with other options than are asked for now: neither kept silently nor lost."""

from __future__ import annotations

from pydantic import BaseModel

from kdcli.spec import Json


def options_changed(now: BaseModel, then: Json) -> list[str]:
    """`labels 1000 -> 2000` for each option that differs from the record `then`.

    An option that kdcli did not have then counts as its default.
    """
    asked, defaults = now.model_dump(mode="json"), type(now)().model_dump(mode="json")
    before = {key: then.get(key, defaults[key]) for key in asked}
    return [f"{key} {before[key]} -> {value}" for key, value in asked.items() if before[key] != value]
