"""Which numbers lie where: values whose lifetimes do not meet share memory, so that little of it is needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kdcli.exporters.c.values import Step


@dataclass
class Block:
    """Memory of `size` numbers of one dtype, in use from step `first` to step `last`; it begins at `offset`."""

    size: int
    dtype: str
    first: int
    last: int
    offset: int = 0

    def meets(self, other: Block) -> bool:
        """Whether both are in use in one step."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Memory:
    """Blocks by the roots that lie in them, and how many numbers of each dtype there are in all."""

    blocks: Mapping[str, Block]
    sizes: Mapping[str, int]

    @property
    def n_bytes(self) -> int:
        """Size of the workspace on a machine that aligns numbers to their own size."""
        kinds = {dtype: np.dtype(dtype).itemsize for dtype in self.sizes}
        total, widest = sum(n * kinds[dtype] for dtype, n in self.sizes.items()), max(kinds.values(), default=1)
        return -(-total // widest) * widest


def plan(steps: Sequence[Step]) -> Memory:
    """Memory for everything that the steps make; what they read and nobody makes is the caller's."""
    blocks = _lifetimes(steps)
    distinct = list({id(block): block for block in blocks.values()}.values())
    dtypes = sorted({block.dtype for block in distinct}, key=lambda dtype: (-np.dtype(dtype).itemsize, dtype))
    return Memory(blocks, {dtype: _place([b for b in distinct if b.dtype == dtype]) for dtype in dtypes})


def _lifetimes(steps: Sequence[Step]) -> dict[str, Block]:
    last = {value.root: at for at, step in enumerate(steps) for value in step.inputs}
    blocks: dict[str, Block] = {}
    for at, step in enumerate(steps):
        kept = _taken_over(step, blocks.get(step.inputs[0].root), at) if step.inputs else None
        for value in (*step.outputs, *step.scratch):
            until = last.get(value.root, at)
            if kept is not None and value is step.outputs[0]:
                kept.last = until
                blocks[value.root] = kept
            else:
                blocks[value.root] = Block(value.size, value.dtype, at, until)
    return blocks


def _taken_over(step: Step, block: Block | None, at: int) -> Block | None:
    """The memory of the first input where nobody needs that any more and the output fits its place."""
    if block is None or not step.is_in_place or block.last != at:
        return None
    return block if (block.size, block.dtype) == (step.y.size, step.y.dtype) else None


def _place(blocks: Iterable[Block]) -> int:
    """Give each block its offset, the largest first; returns how many numbers they need together."""
    placed: list[Block] = []
    for block in sorted(blocks, key=lambda b: (-b.size, b.first)):
        block.offset = 0
        for other in sorted(placed, key=lambda b: b.offset):
            if other.meets(block) and other.offset < block.offset + block.size:
                block.offset = max(block.offset, other.offset + other.size)
        placed.append(block)
    return max(block.offset + block.size for block in placed)
