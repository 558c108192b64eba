"""Students with memory: GRU and LSTM cells, and attention to the last steps."""

from __future__ import annotations

from collections.abc import Sequence

from kdcli.choice import Choice
from kdcli.errors import UsageError
from kdcli.networks.attention import MAX_HISTORY
from kdcli.networks.cnn import channels_of, convolutions
from kdcli.networks.feature_branches import branches, dense, stacked
from kdcli.networks.layers import LayerSpec, Shape
from kdcli.networks.mlp import parse_widths
from kdcli.networks.stack import Branch, Stack

_FIX = "see kdcli list networks"


def gru(choice: Choice, input_shapes: Sequence[Shape], outputs: int) -> Stack:
    """The network of `gru:32[,before=64][,hidden=32][,cnn=8x16x16][,activation=tanh]`; `gru:32x16` has two cells.

    Before and after the cells are hidden layers, at first none; images go through convolutions. Cho et al. 2014.

    Raises:
        UsageError: an option it does not have, or one that cannot be read.
    """
    return _cells("gru_cell", choice, input_shapes, outputs)


def lstm(choice: Choice, input_shapes: Sequence[Shape], outputs: int) -> Stack:
    """As `gru`, of LSTM cells; Hochreiter and Schmidhuber 1997."""
    return _cells("lstm_cell", choice, input_shapes, outputs)


def _cells(kind: str, choice: Choice, input_shapes: Sequence[Shape], outputs: int) -> Stack:
    choice.only("before", "hidden", "cnn", "activation")
    name = choice.options.get("activation", "tanh")
    before, after = (dense(choice.options.get(key, ""), name) for key in ("before", "hidden"))
    cells: list[LayerSpec] = [(kind, {"out": width}) for width in parse_widths(choice.value)]
    return stacked(choice, _seen(choice, input_shapes), [*before, *cells, *after], outputs, _FIX)


def _seen(choice: Choice, input_shapes: Sequence[Shape]) -> list[Branch]:
    """Images through small convolutions, what is flat as it is."""
    channels = channels_of(choice, choice.options.get("cnn", "8x16x16"))
    return branches(input_shapes, lambda shape: convolutions(shape, channels, "relu"))


def attention(choice: Choice, input_shapes: Sequence[Shape], outputs: int) -> Stack:
    """The network of `attention:32[,heads=2][,history=8][,layers=1][,feed=64][,cnn=8x16x16][,activation=relu]`.

    A transformer decoder over the last steps, its keys and values kept in the state: Vaswani et al. 2017, norms first
    as in Xiong et al. 2020. Each layer looks back `history` - 1 steps. `feed` is the width of the feed-forward layers,
    twice the network's unless it is given.

    Raises:
        UsageError: an option it does not have, or one that cannot be read.
    """
    choice.only("heads", "history", "layers", "feed", "cnn", "activation")
    trunk = transformer(choice, "attention_cell", history=choice.whole("history", 8, MAX_HISTORY))
    return stacked(
        choice, _seen(choice, input_shapes), trunk, outputs, "choose a width that the heads divide, and history >= 2"
    )


def transformer(choice: Choice, kind: str, **options: int) -> list[LayerSpec]:
    """A linear layer to the width of the choice, blocks of a `kind` of attention and two layers, and a last norm."""
    width, name = _width(choice), choice.options.get("activation", "relu")
    norm: LayerSpec = ("layer_norm", {})
    attending: LayerSpec = (kind, {"heads": choice.whole("heads", 2), "size": width, **options})
    feed: list[LayerSpec] = [
        ("linear", {"out": choice.whole("feed", 2 * width)}),
        (name, {}),
        ("linear", {"out": width}),
    ]
    block: list[LayerSpec] = [("residual", {"layers": [norm, *layers]}) for layers in ([attending], feed)]
    return [("linear", {"out": width}), *(block * choice.whole("layers", 1, 32)), norm]


def _width(choice: Choice) -> int:
    widths = parse_widths(choice.value)
    if len(widths) > 1:
        raise UsageError(f"{choice} has {len(widths)} widths", "its layers are equally wide", "see layers=2")
    return widths[0]
