"""Layers that remember: what they carry from one step of an episode to the next."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from kdcli.networks.attention import AttentionCell
from kdcli.networks.residual import Residual


def state_size(layer: nn.Module) -> int:
    """Numbers that a layer carries from one step to the next: h of a GRU, h and c of an LSTM, none of most others."""
    if isinstance(layer, Residual):
        return sum(map(state_size, layer.layers))
    if isinstance(layer, nn.GRUCell):
        return layer.hidden_size
    if isinstance(layer, AttentionCell):
        return layer.state_size
    return 2 * layer.hidden_size if isinstance(layer, nn.LSTMCell) else 0


def step_through(layers: Iterable[nn.Module], x: Tensor, state: Tensor) -> tuple[Tensor, list[Tensor]]:
    """One step of layers whose states lie one after the other in `state` (B, S): x (B, I) -> (B, O).

    Returns the next states, too, in parts; a gradient goes through both.
    """
    after, at = [], 0
    for layer in layers:
        size = state_size(layer)
        if size:
            x, kept = _remember(layer, x, state[:, at : at + size])
            after.append(kept)
            at += size
        else:
            x = layer(x)
    return x, after


def _remember(cell: nn.Module, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One step of a cell: x (B, I) and its state (B, S) -> y (B, O) and the next state (B, S)."""
    if isinstance(cell, Residual):
        y, after = step_through(cell.layers, x, state)
        return x + y, torch.cat(after, 1)
    if isinstance(cell, AttentionCell):
        return cell.step(x, state)
    if isinstance(cell, nn.GRUCell):
        h = cell(x, state)
        return h, h
    h, c = cell(x, tuple(state.chunk(2, 1)))
    return h, torch.cat([h, c], 1)
