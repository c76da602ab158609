"""Keras 3: SimpleRNN, LSTM, GRU and Bidirectional.

Matrices are [in, out]; gates of the LSTM i f g o, of the GRU z r n; h = z h + (1 - z) n. One bias for both sides, but a
GRU with `reset_after`, the default, has both: [2, 3H]. `unit_forget_bias` is in the weights. The states are [h] and
[h, c], the input is [B, T, I].
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import OptionError
from ...lang import ACTIVATIONS
from ...nn import Cell, Recurrent
from .blocks import Array, Convention, as_array
from .keras_file import layers_of_file
from .layers import Bias, Found, assemble, check_layer, choose, pieces_of, select
from .names import Layers, gather


def _convention(name: str, kind: str, gates: str, bias: str, **options: Any) -> Convention:
    W, R = (" ".join(f"{letter}_{gate}" for gate in gates) for letter in "WR")
    arrays = {"kernel": W, "recurrent_kernel": R, "bias": bias}
    return Convention("Keras", (name,), kind, arrays, options=options, may_lack_bias=True)


KERAS = (
    _convention("SimpleRNN", "rnn", "h", "B_h"),
    _convention("LSTM", "lstm", "ifgo", "B_i B_f B_g B_o"),
    _convention("GRU", "gru", "zrn", "b_z b_r b_n; d_z d_r d_n", reset_after=True),
    _convention("GRU", "gru", "zrn", "B_z B_r B_n", reset_after=False),
)
# Keras's names of activations, where ours differ. Its leaky_relu has another slope than ours.
_ACTIVATIONS = {"linear": "identity", "swish": "silu"}
_UNLIKE = ("leaky_relu",)
# The ways of Bidirectional, and ours.
_MERGES = {"concat": "concat", "sum": "sum", "ave": "mean", None: "none"}


def from_keras(
    source: Any,
    cell: str | None = None,
    *,
    layers: Layers | None = None,
    bias: Bias = True,
    batch_first: bool = True,
    **options: Any,
) -> Recurrent:
    """A layer with the weights of Keras.

    Args:
        source: a Keras layer, or several, one after the other; the path of a `.keras` file (Keras must be installed;
            nothing in the file is executed); the arrays of one layer in the order of `get_weights()`; or arrays by
            name, `lstm/lstm_cell/kernel`.
        cell: for arrays: rnn, lstm or gru, or Keras's own name.
        layers: which of the named layers, in order. None: the only one, for arrays all of them.
        bias: where Keras has one bias per gate: True puts it beside the input, with zeros beside the state;
            "input" makes a layer with one. For arrays of `use_bias=False`: False.
        batch_first: as in Keras.
        options: for arrays: `activation` of an RNN, `reset_after` of a GRU (True as in Keras).

    Raises:
        InputError: names every missing, extra and wrongly shaped array.
        OptionError: a layer that cannot be converted: another class, activation or way of merging.
        DataError: a file that cannot be read. TargetError: Keras is not installed.
    """
    merge = "concat"
    if isinstance(source, (str, Path)):
        source = layers_of_file(Path(source), layers)
        layers = None
    if _is_keras(source) or (isinstance(source, (list, tuple)) and source and all(map(_is_keras, source))):
        if cell is not None or options or layers is not None:
            raise OptionError("got cell, layers or options beside Keras's own layers, which say these themselves")
        sources = [source] if _is_keras(source) else source
        found, has_bias = _from_layers(sources)
        bias, merge = has_bias and bias, _merge(sources)
    else:
        conventions = select(KERAS, cell, options)
        if isinstance(source, Mapping):
            found = gather(source, conventions, options, layers)
        elif isinstance(source, (list, tuple)):
            found = _from_list(source, conventions[0], options)
        else:
            raise OptionError(
                f"got a {type(source).__name__}, expected a Keras layer, a list of arrays, arrays by name, or the path "
                "of a .keras file"
            )
    return assemble(found, bias=bias, batch_first=batch_first, merge=merge)


def to_keras(layer: Recurrent | Cell, into: Any = None) -> dict[str, Array]:
    """The weights of a layer under Keras's names, in Keras's order.

    `list(to_keras(layer).values())` is what `set_weights` of the Keras layer takes, or of a Sequential of them.

    Args:
        layer: RNN, LSTM or GRU without peepholes, coupled gates or a projection; each of its layers is one of Keras.
        into: a Keras layer, or several, to be given these weights; they must be built. Needed where both directions are
            merged in another way than concat, of which arrays tell nothing.

    Raises:
        OptionError: Keras does not have this cell, or `into` is not like the layer.
    """
    owner = type(check_layer(layer, ("concat",) if into is None else [*_MERGES.values()])).__name__
    two = isinstance(layer, Recurrent) and layer.bidirectional
    arrays: dict[str, Array] = {}
    ready = []
    if isinstance(layer, Recurrent) and two and into is not None:
        theirs = _merge(into if isinstance(into, (list, tuple)) else [into])
        if theirs != layer.merge:
            raise OptionError(f"got Keras layers that merge as our {theirs!r}, expected {layer.merge!r}")
    cells = list(pieces_of(layer))
    for target, (k, direction, definition, pieces) in zip(_targets(into, len(cells), two), cells, strict=True):
        convention = choose(definition, KERAS if target is None else [_convention_of(target)])
        own = convention.lay_out(pieces, owner, bias=None if target is None else bool(target.use_bias))
        if target is not None:
            for option, theirs in _options_of(target, convention).items():
                if theirs != (ours := definition.options[option]):
                    raise OptionError(f"got a Keras {convention.cells[0]} with {option}={theirs!r}, expected {ours!r}")
            got, want = ([list(weight.shape) for weight in weights] for weights in (target.weights, own.values()))
            if got != want:
                raise OptionError(f"got a Keras {convention.cells[0]} with weights {got}, expected {want}")
            ready.append((target, own))
        name = "simple_rnn" if convention.kind == "rnn" else convention.kind
        place = f"{name}_{k}" if k else name
        if two:
            place = f"bidirectional{f'_{k}' if k else ''}/{('forward', 'backward')[direction]}_{place}"
        arrays |= {f"{place}/{name}_cell/{key}": value for key, value in own.items()}
    for target, own in ready:
        target.set_weights(list(own.values()))
    return arrays


def _targets(into: Any, count: int, two: bool) -> list[Any]:
    """The Keras cells that are to take the weights of each of our cells; None without any."""
    if into is None:
        return [None] * count
    layers = [_cells(one) for one in (into if isinstance(into, (list, tuple)) else [into])]
    directions = [len(cells) for cells in layers]
    want = [1 + two] * (count // (1 + two))
    if directions != want:
        raise OptionError(f"got Keras layers with {directions} directions, expected {want}, one number per layer")
    return [cell for cells in layers for cell in cells]


def _is_keras(value: Any) -> bool:
    """Whether it is a layer of Keras, or derived from one."""
    return any(base.__name__ == "Layer" and base.__module__.startswith("keras.") for base in type(value).__mro__)


def _class(value: Any) -> str:
    """The name of a class or function of Keras; "" for one of somebody else: it may compute anything."""
    named = value if hasattr(value, "__name__") else type(value)
    return str(named.__name__) if named.__module__.startswith("keras.") else ""


def _from_list(values: Sequence[Any], convention: Convention, options: Mapping[str, Any]) -> Found:
    """The weights of one Keras layer: two or three arrays per direction."""
    count = len(values)
    each = count if count in (2, 3) else count // 2
    if count not in (2, 3, 4, 6):
        raise OptionError(
            f"got {count} arrays, expected those of one {convention.title}: {', '.join(convention.arrays)} "
            "(without bias for bias=False), twice for Bidirectional"
        )
    parts = [values[k : k + each] for k in range(0, count, each)]
    marks = ("",) if len(parts) == 1 else ("forward/", "backward/")
    layer = [
        (mark, {name: as_array(v) for name, v in zip(convention.arrays, part, strict=False)})
        for mark, part in zip(marks, parts, strict=True)
    ]
    return Found(convention, [layer], options)


def _from_layers(sources: Sequence[Any]) -> tuple[Found, bool]:
    """Keras's own layers, and whether they have biases."""
    layers, conventions, options = [], [], []
    for source in sources:
        for stacked in _stacked(source):
            directions = []
            for mark, cell in zip(("forward", "backward"), stacked, strict=False):
                convention = _convention_of(cell)
                conventions.append(convention)
                options.append({**_options_of(cell, convention), "use_bias": bool(cell.use_bias)})
                if not cell.built:
                    raise OptionError(f"got a layer {source.name} without weights; call it once, or build it")
                weights = [as_array(value) for value in cell.get_weights()]
                prefix = f"{source.name}/{mark}/" if len(stacked) == 2 else f"{source.name}/"
                directions.append((prefix, dict(zip(convention.arrays, weights, strict=False))))
            layers.append(directions)
    if any(other is not conventions[0] for other in conventions) or any(other != options[0] for other in options):
        kinds = ", ".join(f"{c.title} {o}" for c, o in zip(conventions, options, strict=True))
        raise OptionError(f"got layers of different kinds ({kinds}); convert them one by one")
    if len({len(directions) for directions in layers}) > 1:
        raise OptionError("got layers of one and of two directions; convert them one by one")
    has_bias = options[0].pop("use_bias")
    return Found(conventions[0], layers, options[0]), has_bias


def _stacked(layer: Any) -> list[list[Any]]:
    """The cells of a Keras layer, by layer and direction: several layers where it is an RNN of StackedRNNCells."""
    inner = getattr(getattr(layer, "cell", None), "cells", None)
    if _class(layer) == "RNN" and inner is not None:
        _no_backwards(layer)
        return [[cell] for cell in inner]
    return [_cells(layer)]


def _cells(layer: Any) -> list[Any]:
    """The cell of a Keras layer, or the two of a Bidirectional."""
    if not _is_keras(layer):
        raise OptionError(f"got a {type(layer).__name__}, expected a layer of Keras")
    if _class(layer) == "Bidirectional":
        _no_backwards(layer.forward_layer)
        pair = [layer.forward_layer, layer.backward_layer]
    else:
        _no_backwards(layer)
        pair = [layer]
    if wrong := [one for one in pair if _class(one) not in ("SimpleRNN", "LSTM", "GRU", "RNN")]:
        raise OptionError(
            f"got a layer {wrong[0].name} of the class {type(wrong[0]).__name__}, "
            "expected SimpleRNN, LSTM, GRU, RNN of their cells, or Bidirectional"
        )
    return [one.cell for one in pair]


def _merge(layers: Sequence[Any]) -> str:
    """Our way of merging, of those that are Bidirectional. OptionError: we have none such, or they have several."""
    found = list(dict.fromkeys(layer.merge_mode for layer in layers if _class(layer) == "Bidirectional"))
    if len(found) > 1:
        raise OptionError(f"got layers with merge_mode={' and '.join(map(repr, found))}; convert them one by one")
    for mode in found:
        if mode not in _MERGES:
            known = ", ".join(map(repr, _MERGES))
            raise OptionError(f"got a Bidirectional with merge_mode={mode!r}, expected one of {known}")
        return _MERGES[mode]
    return "concat"


def _no_backwards(layer: Any) -> None:
    if getattr(layer, "go_backwards", False):
        raise OptionError(
            f"got a layer {layer.name} with go_backwards=True, expected one that goes forwards, or Bidirectional; make "
            "it so and turn the input around: x.flip(1)"
        )


def _convention_of(cell: Any) -> Convention:
    """The convention of a Keras cell. OptionError: another class."""
    name = _class(cell).removesuffix("Cell")
    for convention in KERAS:
        after = convention.options.get("reset_after")
        if name in convention.cells and (after is None or after == bool(cell.reset_after)):
            return convention
    raise OptionError(f"got a Keras cell of the class {type(cell).__name__}, expected SimpleRNN, LSTM or GRU")


def _options_of(cell: Any, convention: Convention) -> dict[str, Any]:
    """The options of a Keras cell. OptionError: an activation that our cell cannot have."""
    name = convention.cells[0]
    if convention.kind == "rnn":
        return {"activation": _activation(cell.activation, name)}
    for what, want in (("activation", "tanh"), ("recurrent_activation", "sigmoid")):
        got = _activation(getattr(cell, what), name)
        if got != want:
            raise OptionError(f"got a Keras {name} with {what}={got!r}, expected {want!r}")
    return {}


def _activation(function: Any, owner: str) -> str:
    """Our name of an activation of Keras. OptionError: it is none of ours."""
    name = _class(function)
    ours = _ACTIVATIONS.get(name, name)
    if ours not in ACTIVATIONS or ours in _UNLIKE:
        known = ", ".join(sorted({*ACTIVATIONS} - {*_UNLIKE}))
        raise OptionError(f"got a Keras {owner} with the activation {name or function!r}, expected one of {known}")
    return ours
