"""The type of a config's field that holds names, given one by one or joined by commas."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BeforeValidator


def split(given: Any) -> Any:
    """Names joined by commas, or several of them."""
    if not isinstance(given, str | Iterable):
        return given
    words = [given] if isinstance(given, str) else list(given)
    return [part.strip() for word in words for part in str(word).split(",") if part.strip()]


Names = Annotated[tuple[str, ...], BeforeValidator(split)]
