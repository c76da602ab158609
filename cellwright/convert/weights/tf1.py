"""TensorFlow 1: BasicRNNCell, BasicLSTMCell, LSTMCell with peepholes and projection, GRUCell, and stacks of them.

One kernel [I + P, G*H] for [x; h]; gates of the LSTM i g f o (TF1 calls g "j"), of the GRU r u, where u keeps the old
state as our z does, and the candidate apart, with the reset before the product. One bias. The LSTMs add `forget_bias`
(1.0) to the forget gate at every call; it is not in the checkpoint. Their state is (c, h).
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import DataError, OptionError
from ...nn import Cell, Recurrent
from ..limits import LIMIT, check_size, first_line, framework
from .blocks import Array, Convention
from .layers import Bias, Found, assemble, check_layer, choose, pieces_of, select
from .names import Layers, gather

_LSTM = {"kernel": "W_i W_g W_f W_o; R_i R_g R_f R_o", "bias": "B_i B_g B_f B_o"}
_PEEPHOLES = {"w_f_diag": "p_f", "w_i_diag": "p_i", "w_o_diag": "p_o"}
_GRU = {
    "gates/kernel": "W_r W_z; R_r R_z",
    "gates/bias": "B_r B_z",
    "candidate/kernel": "W_n; R_n",
    "candidate/bias": "B_n",
}
TF1 = (
    Convention("TF1", ("BasicRNNCell",), "rnn", {"kernel": "W_h; R_h", "bias": "B_h"}),
    Convention("TF1", ("BasicLSTMCell",), "lstm", _LSTM),
    Convention("TF1", ("LSTMCell",), "lstm", {**_LSTM, **_PEEPHOLES, "projection/kernel": "V"}),
    Convention("TF1", ("GRUCell",), "gru", _GRU, options={"reset_after": False}),
)
_SCOPES = {
    "BasicRNNCell": "basic_rnn_cell",
    "BasicLSTMCell": "basic_lstm_cell",
    "LSTMCell": "lstm_cell",
    "GRUCell": "gru_cell",
}


def from_tf1(
    source: Mapping[str, Any] | str | Path,
    cell: str,
    *,
    layers: Layers | None = None,
    forget_bias: float = 1.0,
    bias: Bias = True,
    batch_first: bool = True,
    **options: Any,
) -> Recurrent:
    """A layer with the weights of TensorFlow 1.

    Args:
        source: arrays by the names of the checkpoint, `rnn/multi_rnn_cell/cell_0/lstm_cell/kernel`, where only the end
            must be so; or the path of a checkpoint, which TensorFlow must be installed to read.
        cell: rnn, lstm or gru, or TF1's own name.
        layers: the scopes of the layers, in order; everything else is left aside. None: all arrays are the layers'.
        forget_bias: what TF1's LSTM adds at every call; here it goes into the weights.
        bias: True: TF1's bias beside the input, zeros beside the state; "input": a layer with one bias.
        batch_first: as in TF1's `dynamic_rnn`.
        options: `activation` of an RNN.

    Raises:
        InputError: names every missing, extra and wrongly shaped array.
        OptionError: an unknown cell, or layers that are not there.
        DataError: a checkpoint that cannot be read. TargetError: TensorFlow is not installed.
    """
    conventions = select(TF1, cell, options)
    _check_forget_bias(forget_bias)
    if isinstance(source, (str, Path)):
        source = _checkpoint(Path(source), layers)
    found = gather(source, conventions, options, layers)
    _check_scopes(found)
    return assemble(found, bias=bias, batch_first=batch_first, forget_bias=forget_bias)


def to_tf1(layer: Recurrent | Cell, *, forget_bias: float = 1.0) -> dict[str, Array]:
    """The weights of a layer under TF1's names.

    They stand below `rnn`, with several layers below `rnn/multi_rnn_cell/cell_0`, ..., and with two directions below
    `bidirectional_rnn/fw` and `bw`, with several such layers each below a `cell_0`, ... of its own.

    Args:
        layer: RNN, LSTM without coupled gates, GRU with `reset_after=False`.
        forget_bias: what TF1's LSTM will add at every call; it is subtracted here.

    Raises:
        OptionError: TF1 does not have this cell.
    """
    owner = type(check_layer(layer)).__name__
    _check_forget_bias(forget_bias)
    two = isinstance(layer, Recurrent) and layer.bidirectional
    several = isinstance(layer, Recurrent) and layer.num_layers > 1
    arrays: dict[str, Array] = {}
    for k, direction, definition, pieces in pieces_of(layer):
        convention = choose(definition, TF1)
        own = convention.lay_out(pieces, owner)
        if convention.kind == "lstm":
            H = definition.sizes["hidden_size"]
            own["bias"][2 * H : 3 * H] -= forget_bias
        scope = "rnn/multi_rnn_cell" if several and not two else "stack_bidirectional_rnn" if two and several else ""
        scope += f"/cell_{k}" if several else ""
        scope += f"/bidirectional_rnn/{('fw', 'bw')[direction]}" if two else "" if several else "rnn"
        place = f"{scope}/{_SCOPES[convention.cells[0]]}".strip("/")
        arrays |= {f"{place}/{name}": value for name, value in own.items()}
    return arrays


def _check_forget_bias(value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise OptionError(f"got forget_bias={value!r}, expected a number, such as TF1's 1.0")


def _check_scopes(found: Found) -> None:
    """OptionError: a scope names another kind of cell; the shapes alone would not always tell."""
    kinds = {_SCOPES[name]: convention.kind for convention in TF1 for name in convention.cells}
    for prefix, _ in (cell for layer in found.layers for cell in layer):
        for part in prefix.split("/"):
            if kinds.get(part, found.convention.kind) != found.convention.kind:
                raise OptionError(f"got cell={found.convention.kind!r} for {prefix.rstrip('/')}, a {kinds[part]}")


def _checkpoint(path: Path, layers: Layers | None) -> dict[str, Array]:
    """The arrays of a checkpoint, only those below `layers` if they are named."""
    tensorflow = framework("tensorflow", f"reading the checkpoint {path}", "tensorflow-cpu")
    try:
        reader = tensorflow.train.load_checkpoint(str(path))
        shapes = reader.get_variable_to_shape_map()
        types = reader.get_variable_to_dtype_map()
    except Exception as error:  # TensorFlow raises errors of many kinds
        raise DataError(
            f"{path} is not a checkpoint that TensorFlow can read ({first_line(error)}); "
            "name it without .index or .data-00000-of-00001, or name its folder"
        ) from None
    scopes = (
        [""] if layers is None else [n for entry in layers for n in ((entry,) if isinstance(entry, str) else entry)]
    )
    below = [name for name in sorted(shapes) if any(f"{name}/".startswith(scope) for scope in scopes)]
    wanted = [name for name in below if types[name].is_floating]  # the number of steps, for one, is no weight
    if not wanted:
        known = ", ".join(sorted(shapes)[:20])
        raise OptionError(f"got layers={layers!r}, below which {path} has no array; it has {known}")
    check_size(path, sum(math.prod(shapes[name]) * types[name].size for name in wanted), LIMIT)
    try:
        return {name: reader.get_tensor(name) for name in wanted}
    except Exception as error:  # an IndexError, for one, where the file is too short
        raise DataError(f"{path} is damaged: {first_line(error)}; restore it from a copy") from None
