"""torch.nn: RNN, LSTM and GRU, whose conventions are ours; a `state_dict` also loads directly, in both directions.

Matrices are [out, in], one row of blocks per gate: i f g o; r z n. Two biases. Names end with `_l0`, `_l0_reverse`.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from ...errors import InputError
from ...nn import Cell, Recurrent
from .blocks import Array, Convention
from .layers import Bias, assemble, check_layer, choose, pieces_of, select
from .names import Layers, gather


def _convention(name: str, kind: str, gates: str, **more: Any) -> Convention:
    arrays = {f"weight_{side}": "; ".join(f"{n}_{g}" for g in gates) for side, n in (("ih", "W"), ("hh", "R"))}
    arrays |= {f"bias_{side}": " ".join(f"{n}_{g}" for g in gates) for side, n in (("ih", "b"), ("hh", "d"))}
    arrays |= {"weight_hr": "V"} if kind == "lstm" else {}
    return Convention("torch.nn", (name,), kind, arrays, transposed=False, may_lack_bias=True, **more)


TORCH = (
    _convention("RNN", "rnn", "h"),
    _convention("LSTM", "lstm", "ifgo"),
    _convention("GRU", "gru", "rzn", options={"reset_after": True}),
)
_NAME = re.compile(r"(?:(.*)\.)?(weight|bias)_(ih|hh|hr)_l(\d+)(_reverse)?")


def from_torch(
    source: Any,
    cell: str | None = None,
    *,
    layers: Layers | None = None,
    bias: Bias = True,
    batch_first: bool | None = None,
    **options: Any,
) -> Recurrent:
    """A layer with the weights of torch.nn.

    Args:
        source: an `nn.RNN`, `nn.LSTM` or `nn.GRU`, or a `state_dict` with their names.
        cell: for a `state_dict`: rnn, lstm or gru.
        layers: for a `state_dict`: the name of the module in it, `["encoder"]` for `encoder.weight_ih_l0`; everything
            else is left aside.
        bias: True; "input" where the second bias is zero; for a `state_dict` without biases False.
        batch_first: None: as the module has it, else False.
        options: for a `state_dict`: `activation` of an RNN.

    Raises:
        InputError: names every missing, extra and wrongly shaped array. OptionError: an unknown cell.
    """
    dropout = 0.0
    if isinstance(source, (nn.RNN, nn.LSTM, nn.GRU)):
        cell = cell or type(source).__name__
        options |= {"activation": source.nonlinearity} if isinstance(source, nn.RNN) else {}
        batch_first = source.batch_first if batch_first is None else batch_first
        bias = source.bias and bias
        dropout, source = float(source.dropout), source.state_dict()
    conventions = select(TORCH, cell, options)
    if not isinstance(source, Mapping):
        raise InputError(f"got a {type(source).__name__}, expected an nn.RNN, nn.LSTM or nn.GRU, or a state_dict")
    arrays = {_path(str(name)): value for name, value in source.items()}
    found = gather(arrays, conventions, options, layers, _name)
    result = assemble(found, bias=bias, batch_first=bool(batch_first))
    result.dropout = dropout
    return result


def to_torch(layer: Recurrent | Cell) -> dict[str, Array]:
    """The weights of a layer under the names of torch.nn.

    Args:
        layer: RNN, LSTM without peepholes or coupled gates, GRU with the reset after the product. One bias becomes two.

    Raises:
        OptionError: torch.nn does not have this cell.
    """
    owner = type(check_layer(layer)).__name__
    arrays: dict[str, Array] = {}
    for k, direction, definition, pieces in pieces_of(layer):
        end = f"_l{k}{'_reverse' if direction else ''}"
        arrays |= {f"{name}{end}": value for name, value in choose(definition, TORCH).lay_out(pieces, owner).items()}
    return arrays


def _path(name: str) -> str:
    """ "encoder.weight_ih_l0_reverse" as "encoder/l0/backward/weight_ih"."""
    found = _NAME.fullmatch(name)
    if not found:
        return name
    scope, what, side, layer, reverse = found.groups()
    return "/".join(filter(None, (scope, f"l{layer}", "backward" if reverse else "", f"{what}_{side}")))


def _name(path: str) -> str:
    """ "encoder/l0/backward/weight_ih" as "encoder.weight_ih_l0_reverse"."""
    found = re.fullmatch(r"(?:(.*)/)?(l\d+)(/backward)?/(\w+)", path)
    if not found:
        return path
    scope, layer, reverse, array = found.groups()
    return f"{scope + '.' if scope else ''}{array}_{layer}{'_reverse' if reverse else ''}"
