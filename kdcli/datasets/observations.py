"""Observations as columns: one, or for a Dict one a part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from kdcli.spec import OBS, Dict, Part, Space, join_rows

_PREFIX = f"{OBS}."


def spread(space: Space, obs: np.ndarray) -> dict[str, np.ndarray]:
    """Raw observations (B, *shape) as columns: `obs`, or `obs.NAME` for each part of a Dict."""
    return {f"{_PREFIX}{name}": obs[name] for name in space.spaces} if isinstance(space, Dict) else {OBS: obs}


def columns(space: Space) -> dict[str, Part]:
    """The columns of observations of `space`, and what each holds."""
    if isinstance(space, Dict):
        return {f"{_PREFIX}{name}": part for name, part in space.spaces.items()}
    return {OBS: space}


def names(columns: Iterable[str]) -> list[str]:
    """Those of the columns that hold observations."""
    return [name for name in columns if name == OBS or name.startswith(_PREFIX)]


def gathered(space: Space, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """The inverse of `spread`."""
    return join_rows(space, {name.removeprefix(_PREFIX): columns[name] for name in names(columns)})
