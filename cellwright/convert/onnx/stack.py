"""The recurrent nodes of an ONNX model as one layer, with the weights' names of torch.nn."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from ...errors import OptionError
from ...nn import Recurrent
from ..weights.layers import KINDS, LayerForm, empty_layer, kind_of
from ..weights.names import Layers
from .file import load, place_of
from .model import OnnxModel
from .recurrent import ATTRIBUTES, Recurrence

# What may stand between two layers: it moves numbers and changes none.
_BETWEEN = ("Identity", "Dropout", "Squeeze", "Transpose", "Reshape", "Flatten")


def layer_from_onnx(
    source: Any,
    cell: str | None = None,
    *,
    layers: Layers | None = None,
    batch_first: bool | None = None,
    **options: Any,
) -> Recurrent:
    """The RNN, LSTM or GRU nodes of an ONNX model, one after the other, as one layer; needs the package onnx.

    Args:
        source: as `from_onnx` takes it.
        cell: rnn, lstm or gru; None: what the model has.
        layers: the names of the nodes to take, in order, and everything else is left aside; None: the model has
            nothing else.
        batch_first: how the layer is called; None: as the attribute `layout` says.
        options: none; the model has them.

    Returns:
        RNN, LSTM or GRU, or a Recurrent of layers of different sizes. OptionError: the model is no such stack; says
        what it has. DataError: as `from_onnx`.
    """
    if options:
        raise OptionError(f"got options {options!r}, expected batch_first at most: the model tells all others")
    if batch_first not in (None, True, False):
        raise OptionError(f"got batch_first={batch_first!r}, expected True, False or None")
    proto = load(source)
    model = OnnxModel(proto)
    nodes = [node for node in proto.graph.node if node.op_type in ATTRIBUTES]
    modules = {_name(node): model.recurrence(node) for node in nodes}
    chosen = [_name(node) for node in nodes] if layers is None else [_one(entry) for entry in layers]
    if lost := [name for name in chosen if name not in modules]:
        raise _refusal(f"got layers={lost!r}; its recurrent nodes are {', '.join(modules) or 'none'}")
    if not chosen:
        others = ", ".join(sorted({node.op_type for node in proto.graph.node})[:20]) or "no node"
        raise _refusal(f"the model has no RNN, LSTM or GRU node, but {others}")
    stack = [modules[name] for name in chosen]
    if layers is None:
        _check_alone(model, proto, nodes)
    kinds = [_kind(name, module) for name, module in zip(chosen, stack, strict=True)]
    if len(set(kinds)) > 1 or len({len(module.layers) for module in stack}) > 1:
        shown = ", ".join(f"{name} ({kind}, {m.direction})" for name, kind, m in zip(chosen, kinds, stack, strict=True))
        raise _refusal(f"the model has nodes of different kinds: {shown}; choose some with layers=[...]")
    if cell is not None and cell.lower() != kinds[0]:
        raise OptionError(f"got cell={cell!r}, but the nodes are of the kind {kinds[0]}")
    return _filled(kinds[0], stack, chosen, batch_first)


def _filled(kind: str, stack: Sequence[Recurrence], names: Sequence[str], batch_first: bool | None) -> Recurrent:
    """The layer with its weights."""
    forms: list[LayerForm] = []
    for k, module in enumerate(stack):
        definition = module.sides()[0].definitions[0]
        params, usual = definition.params, KINDS[kind][0].defaults()
        options = {name: value for name, value in definition.options.items() if value != usual[name]}
        form = LayerForm(definition.input_size, definition.sizes["hidden_size"], "bias_hh" in params, options)
        if k and form.inputs != forms[-1].hidden * len(module.layers):
            gives = forms[-1].hidden * len(module.layers)
            raise _refusal(f"{names[k]} takes {form.inputs} inputs, and {names[k - 1]} gives {gives}")
        forms.append(form)
    weights = {
        f"{name.removesuffix('_l0')}_l{k}{suffix}": value
        for k, module in enumerate(stack)
        for suffix, side in zip(("", "_reverse"), module.layers, strict=False)
        for name, value in side.state_dict().items()
    }
    dtypes = {value.dtype for value in weights.values()}
    if len(dtypes) > 1:
        raise _refusal(f"its weights have the types {', '.join(sorted(map(str, dtypes)))}")
    first = bool(stack[0]._attributes.get("layout", 0)) if batch_first is None else bool(batch_first)
    dtype = dtypes.pop()
    result = empty_layer(kind, forms, len(stack[0].layers) == 2, first, dtype)
    result.load_state_dict(weights)
    return result


def _refusal(what: str) -> OptionError:
    return OptionError(
        f"{what}; expected RNN, LSTM or GRU nodes one after the other and nothing else. In Python, "
        "cellwright.convert.from_onnx(file) runs the whole model"
    )


def _name(node: Any) -> str:
    return str(node.name or next((o for o in node.output if o), node.op_type))


def _one(entry: str | tuple[str, str]) -> str:
    """A node holds both directions."""
    if not isinstance(entry, str):
        raise OptionError(f"got {','.join(entry)} as a layer, expected the name of one node, which has both directions")
    return entry


def _kind(name: str, module: Recurrence) -> str:
    """rnn, lstm or gru. OptionError: a node that our layers cannot be."""
    if not len(module.layers):
        raise _refusal(f"the weights of {name} come with each call")
    if module.direction == "reverse":
        raise _refusal(f"{name} runs against time only")
    kind = {kind_of(side.definitions[0]) for side in module.sides()}
    found = kind.pop() if len(kind) == 1 else None
    if found is None:
        told = ", ".join(k for k in module._attributes if k not in ("hidden_size", "direction", "layout"))
        raise _refusal(f"{name} has attributes that our {module._op} has no option for ({told})")
    return found


def _check_alone(model: OnnxModel, proto: Any, nodes: Sequence[Any]) -> None:
    """OptionError: other nodes have weights, or stand between these."""
    makers = {name: node for node in proto.graph.node for name in node.output if name}
    for before, node in pairwise(nodes):
        name = node.input[0]
        while name in makers and makers[name].op_type in _BETWEEN:
            name = makers[name].input[0]
        if name != before.output[0]:
            got = place_of(makers[name]) if name in makers else f"the input {name!r}"
            raise _refusal(f"{_name(node)} sees {got}, not {_name(before)} alone; choose one with layers=[...]")
    read = {name for node in proto.graph.node if node.op_type not in ATTRIBUTES for name in node.input}
    others = []
    for name, key in model._main._held.items():
        value = model.held(*key)
        if key[1] and (name in read or bool(value.any())):  # states that begin with zero need not be told
            others.append(f"{name} {list(value.shape)}")
    if others:
        raise _refusal(
            f"the model has weights of other nodes ({', '.join(others[:20])}); choose nodes with layers=[...]"
        )
    if any(node.op_type == "Scan" for node in proto.graph.node):
        raise _refusal("the model has a Scan node; choose nodes with layers=[...]")
