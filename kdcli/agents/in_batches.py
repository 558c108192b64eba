"""A file that takes a fixed number of observations at a time, asked about any number of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnxruntime


class InBatches:
    """A session of a file whose batch is fixed to `size`; what is missing of the last batch is filled with zeros."""

    def __init__(self, session: onnxruntime.InferenceSession, size: int) -> None:
        self._session, self.size = session, size
        self.get_inputs, self.get_outputs = session.get_inputs, session.get_outputs

    def run(self, names: Sequence[str] | None, given: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Inputs by name, (B, *shape) -> outputs, (B, *shape), as an `onnxruntime.InferenceSession` does."""
        n = len(next(iter(given.values())))
        if n == self.size:
            return self._session.run(names, dict(given))
        found = [
            self._session.run(names, {name: self._full(array[at : at + self.size]) for name, array in given.items()})
            for at in range(0, max(n, 1), self.size)
        ]
        return [np.concatenate(pieces)[:n] for pieces in zip(*found, strict=True)]

    def _full(self, rows: np.ndarray) -> np.ndarray:
        missing = self.size - len(rows)
        return np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), rows.dtype)]) if missing else rows


def in_batches(session: onnxruntime.InferenceSession) -> Any:
    """The session, for any number of observations; ValueError where its inputs do not agree on a number."""
    sizes = {end.shape[0] if end.shape and isinstance(end.shape[0], int) else 0 for end in session.get_inputs()}
    if sizes == {0}:
        return session
    if len(sizes) > 1 or min(sizes) < 1:
        raise ValueError(f"inputs of batches of {sorted(sizes)}")
    return InBatches(session, sizes.pop())
