"""Tensors that are made once and kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

import torch

T = TypeVar("T")


class cached_tensor(cached_property[T]):  # noqa: N801 - it is used as functools' own is
    """A `functools.cached_property` that holds tensors which may take part in a gradient later.

    A tensor made under `torch.inference_mode` never can, so one that is kept is made outside of it, whoever asks first.
    """

    def __init__(self, make: Callable[[Any], T]) -> None:
        def make_ordinary(owner: Any) -> T:
            with torch.inference_mode(False), torch.no_grad():
                return make(owner)

        super().__init__(make_ordinary)
        self.__doc__ = make.__doc__
