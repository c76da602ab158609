"""Flax: SimpleCell, LSTMCell, OptimizedLSTMCell and GRUCell of `flax.linen` and `flax.nnx`, as parameter trees.

Matrices are [in, out]; one Dense per gate and side (linen), or gates side by side (nnx: i f g o, r z n). One bias: of
the LSTM beside the state, of the others beside the input; linen's GRU has one more for n, beside the state, and nnx's
has none. The reset of the GRU comes after the product; h = (1 - z) n + z h. The state is (c, h), the input [B, T, I].
"""

from collections.abc import Iterator, Mapping
from typing import Any

from ...errors import InputError, OptionError
from ...nn import Cell, Recurrent
from .blocks import Convention
from .layers import Bias, assemble, check_layer, choose, pieces_of, select
from .names import Layers, gather

_SIMPLE = ("SimpleCell",)
_LSTM = ("LSTMCell", "OptimizedLSTMCell")
_GRU = ("GRUCell",)
_AFTER = {"reset_after": True}


def _dense(gates: str, bias: Mapping[str, str]) -> dict[str, str]:
    """One Dense per gate and side: ii, if, ...; hi, hf, ..."""
    kernels = {f"{side}{g}/kernel": f"{letter}_{g}" for side, letter in (("i", "W"), ("h", "R")) for g in gates}
    return {**kernels, **{f"{place}/bias": piece for place, piece in bias.items()}}


def _side_by_side(gates: str, side: str, bias: str) -> dict[str, str]:
    W, R = (" ".join(f"{letter}_{gate}" for gate in gates) for letter in "WR")
    return {"dense_i/kernel": W, "dense_h/kernel": R, f"dense_{side}/bias": bias}


_LSTM_GATES = _dense("ifgo", {f"h{gate}": f"B_{gate}" for gate in "ifgo"})
_GRU_GATES = _dense("rzn", {"ir": "B_r", "iz": "B_z", "in": "b_n", "hn": "d_n"})
LINEN = (
    Convention("Flax", _SIMPLE, "rnn", {"i/kernel": "W_h", "h/kernel": "R_h", "i/bias": "B_h"}),
    Convention("Flax", _LSTM, "lstm", _LSTM_GATES),
    Convention("Flax", _GRU, "gru", _GRU_GATES, options=_AFTER),
)
NNX = (
    Convention("Flax nnx", _SIMPLE, "rnn", _side_by_side("h", "i", "B_h")),
    Convention("Flax nnx", _LSTM[1:], "lstm", _side_by_side("ifgo", "h", "B_i B_f B_g B_o")),
    # Python has a word "if", so the attribute of the cell is "if_".
    Convention("Flax nnx", _LSTM[:1], "lstm", {n.replace("if/", "if_/"): piece for n, piece in _LSTM_GATES.items()}),
    Convention("Flax nnx", _GRU, "gru", _side_by_side("rzn", "i", "B_r B_z b_n"), options=_AFTER),
)


def from_flax(
    params: Any,
    cell: str,
    *,
    layers: Layers | None = None,
    bias: Bias = True,
    batch_first: bool = True,
    **options: Any,
) -> Recurrent:
    """A layer with the weights of Flax.

    Args:
        params: the tree of a cell, of an `RNN` or `Bidirectional` of it, or of a whole module: nested dicts of arrays,
            with or without the outer "params"; an nnx State; or arrays by name, `cell/ii/kernel`.
        cell: rnn, lstm or gru, or Flax's own name.
        layers: the names of the layers, in order, joined by "/": `["LSTMCell_0", "LSTMCell_1"]`; a pair (forward,
            backward) for two directions; everything else is left aside. None: all arrays are the layers'.
        bias: True: Flax's bias beside the input, zeros beside the state; "input": a layer with one bias.
        batch_first: as in Flax's `RNN`.
        options: `activation` of an RNN.

    Raises:
        InputError: names every missing, extra and wrongly shaped array.
        OptionError: an unknown cell, or layers that are not there.
    """
    conventions = select((*LINEN, *NNX), cell, options)
    if not isinstance(params, Mapping):
        raise InputError(f"got a {type(params).__name__} as parameters of Flax, expected a dict of arrays and dicts")
    tree = params["params"] if set(params) == {"params"} and isinstance(params["params"], Mapping) else params
    return assemble(gather(dict(_flat(tree)), conventions, options, layers), bias=bias, batch_first=batch_first)


def to_flax(layer: Recurrent | Cell, *, variant: str = "linen") -> dict[str, Any]:
    """The weights of a layer as a tree of Flax: nested dicts of arrays.

    The tree of one layer is that of the cell; with several layers it stands below `layer_0`, ...; with two directions
    below `forward_rnn/cell` and `backward_rnn/cell`, as in Flax's `Bidirectional`.

    Args:
        layer: RNN, LSTM without peepholes, coupled gates or a projection, GRU.
        variant: "linen", or "nnx": the tree of nnx's SimpleCell, OptimizedLSTMCell or GRUCell.

    Raises:
        OptionError: Flax does not have this cell.
    """
    if variant not in ("linen", "nnx"):
        raise OptionError(f"got variant={variant!r}, expected 'linen' or 'nnx'")
    owner = type(check_layer(layer)).__name__
    two = isinstance(layer, Recurrent) and layer.bidirectional
    several = isinstance(layer, Recurrent) and layer.num_layers > 1
    tree: dict[str, Any] = {}
    for k, direction, definition, pieces in pieces_of(layer):
        path = [f"layer_{k}"] if several else []
        path += [("forward_rnn", "backward_rnn")[direction], "cell"] if two else []
        own = choose(definition, LINEN if variant == "linen" else NNX).lay_out(pieces, owner)
        for name, value in own.items():
            *place, last = [*path, *name.split("/")]
            inner = tree
            for part in place:
                inner = inner.setdefault(part, {})
            inner[last] = value
    return tree


def _flat(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The arrays of a tree by their names, joined by "/"."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value
