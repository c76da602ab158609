"""ONNX models as modules of torch: RNN, LSTM and GRU become layers of this package, `Scan` a loop over its body."""

import inspect
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CellwrightError, DataError, InputError
from .onnx_file import load, place_of, tensor_of, torch_type
from .onnx_functions import FUNCTIONS, SINCE
from .onnx_layers import ATTRIBUTES, WEIGHTS, Recurrence
from .onnx_loop import Loop, loop_attributes
from .onnx_package import package

Values = dict[str, Tensor]
Constants = ChainMap[str, Tensor | None]  # by name, the innermost graph first; None: an input hides it
# From the model, a node's inputs (None: left away) and all values that it can see, to its outputs.
Call = Callable[["OnnxModel", list[Tensor | None], Values], Sequence[Tensor]]


def from_onnx(source: Any) -> "OnnxModel":
    """An ONNX model as a module of torch, with its weights as parameters; needs the package onnx.

    Every RNN, LSTM and GRU node becomes one `cellwright.Recurrent` per direction, under `model.layers`, with every
    attribute that these operators have. `Scan` runs its body step by step in torch. Around them are the usual
    operators for shapes, arithmetic and reductions.

    Args:
        source: the path of a file (its external data must lie in its folder), bytes, or an `onnx.ModelProto`.

    Returns:
        The module. DataError: the file is damaged, or holds what is not supported; the message names the node and the
        attribute. Nothing in the file is executed.
    """
    return OnnxModel(load(source))


class OnnxModel(nn.Module):
    """A graph of ONNX operators: call it with its inputs in their order, or by name.

    Attributes:
        inputs, outputs: their names, in order.
        opset: the version of ONNX's operators.
        layers: the recurrent nodes; `layers[name].layers` is a `Recurrent` for each direction.
        weights: the floating weights of all other nodes.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.layers, self.weights = nn.ModuleDict(), nn.ParameterDict()
        self.opset = _opset(model)
        held = {tensor.name for tensor in model.graph.initializer}  # older models list their weights as inputs, too
        self._declared = {v.name: _declared(v) for v in model.graph.input if v.name not in held}
        self.inputs = tuple(self._declared)
        self.outputs = tuple(v.name for v in model.graph.output)
        self._main = Block(self, model.graph, ChainMap())

    def forward(self, *given: Tensor, **named: Tensor) -> Any:
        """Run the model: one tensor per input. Returns the output, or a tuple of all outputs in their order."""
        if len(given) > len(self.inputs):
            raise InputError(f"got {len(given)} inputs, expected {len(self.inputs)}: {', '.join(self.inputs)}")
        values = dict(zip(self.inputs, given, strict=False))
        for name, value in named.items():
            if name not in self.inputs or name in values:
                raise InputError(f"got the input {name!r}, expected each of {', '.join(self.inputs)} once")
            values[name] = value
        for name, (dtype, shape) in self._declared.items():
            _check_input(name, values.get(name), dtype, shape)
        found = self._main.run(self, values, {})
        return found[0] if len(found) == 1 else tuple(found)

    def hold(self, name: str, value: Tensor) -> tuple[str, bool]:
        """Keep a constant: its key, and whether it is a weight, as all are that are floating and no single number."""
        trained = value.is_floating_point() and bool(value.dim())
        key = _key(name, self.weights) if trained else f"constant {sum(1 for _ in self.buffers())}"
        if trained:
            self.weights[key] = nn.Parameter(value)
        else:
            self.register_buffer(key, value, persistent=False)
        return key, trained

    def held(self, key: str, trained: bool) -> Tensor:
        """The present value of a constant."""
        value: Tensor = self.weights[key] if trained else getattr(self, key)
        return value


# What torch and Python raise for values that do not fit an operator.
_FAULTS = (ArithmeticError, AttributeError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError)


class Block:
    """A graph, or the body of a `Scan`, ready to run. `around`: the constants of the graphs that it stands in."""

    def __init__(self, model: OnnxModel, graph: Any, around: Constants) -> None:
        own = {tensor.name: tensor_of(tensor) for tensor in graph.initializer}
        nodes = []
        for node in graph.node:
            if node.op_type == "Constant" and node.output[0]:
                own[node.output[0]] = _constant(node)
            else:
                nodes.append(node)
        self.inputs = tuple(v.name for v in graph.input if v.name not in own)
        constants: Constants = ChainMap({**dict.fromkeys(self.inputs), **own}, around)
        self.outputs = tuple(v.name for v in graph.output)
        self._calls = [
            (place_of(n), _call(model, n, constants), _read_by(n, constants), tuple(n.output)) for n in nodes
        ]
        used = {name for n in nodes for name in _uses(n, constants)} | set(self.outputs)
        self._held = {name: model.hold(name, value) for name, value in own.items() if name in used}

    def run(self, model: OnnxModel, inputs: Mapping[str, Tensor], around: Values) -> list[Tensor]:
        """The outputs, from the inputs by name and the values of the graphs around."""
        values = {**around, **{name: model.held(*key) for name, key in self._held.items()}, **inputs}
        for place, call, reads, outputs in self._calls:
            try:
                found = call(model, [values[name] if name else None for name in reads], values)
            except CellwrightError as error:
                raise InputError(f"{place}: {error}") from None
            except _FAULTS as error:
                raise InputError(f"{place}: {str(error).strip()}") from error
            if any(outputs[len(found) :]):
                raise InputError(f"{place}: it gives {len(found)} output(s), the model asks for {len(outputs)}")
            values.update((name, value) for name, value in zip(outputs, found, strict=False) if name)
        return [values[name] for name in self.outputs]


def _call(model: OnnxModel, node: Any, constants: Constants) -> Call:
    """How to run one node. DataError: the operator, an attribute or a type of it is not supported."""
    place, op, attributes = place_of(node), node.op_type, _attributes(node)
    if node.domain not in ("", "ai.onnx") or op not in (*FUNCTIONS, *ATTRIBUTES, "Scan"):
        raise DataError(f"{place}: this operator is not supported; expected {', '.join([*ATTRIBUTES, 'Scan'])} "
                        f"and {', '.join(FUNCTIONS)}")  # fmt: skip
    if model.opset < SINCE.get(op, 1):
        raise DataError(f"{place}: got the operator of opset {model.opset}, expected opset {SINCE[op]} or newer")
    if op in FUNCTIONS:
        if op == "Split":
            attributes.setdefault("num_outputs", len(node.output))
        _check_attributes(place, attributes, _known(FUNCTIONS[op]))
        return Function(op, attributes)
    if op in ATTRIBUTES:
        _check_attributes(place, attributes, ATTRIBUTES[op])
        names = [node.input[k] if k < len(node.input) else "" for k in WEIGHTS[op]]
        fixed = all(not name or constants.get(name) is not None for name in names)
        weights = [constants.get(name) for name in names] if fixed else None
        key = _key(node.name or op, model.layers)
        model.layers[key] = Recurrence(place, op, attributes, weights)
        return Layer(key)
    _check_attributes(place, attributes, loop_attributes(model.opset))
    return Loop(Block(model, attributes["body"], constants), attributes, place, model.opset)


def _read_by(node: Any, constants: Constants) -> tuple[str, ...]:
    """The inputs that a node reads when it runs: not the weights that became those of a layer."""
    names = list(node.input)
    places = [k for k in WEIGHTS.get(node.op_type, ()) if k < len(names)]
    if all(not names[k] or constants.get(names[k]) is not None for k in places):
        for k in places:
            names[k] = ""
    return tuple(names)


def _uses(node: Any, constants: Constants) -> set[str]:
    """Every name that a node and the graphs inside it read."""
    found = set(_read_by(node, constants))
    for attribute in node.attribute:
        if attribute.HasField("g"):
            found.update(v.name for v in attribute.g.output)
            inside = ChainMap(dict.fromkeys(v.name for v in attribute.g.input), constants)
            for inner in attribute.g.node:
                found |= _uses(inner, inside)
    return found


# A call holds no tensors and no modules, so that a copy of a model uses its own.
@dataclass(frozen=True)
class Function:
    """A node that is a function of torch."""

    op: str
    attributes: dict[str, Any]

    def __call__(self, model: OnnxModel, given: list[Tensor | None], values: Values) -> Sequence[Tensor]:
        """Its outputs."""
        result = FUNCTIONS[self.op](*given, **self.attributes)
        return result if isinstance(result, tuple) else (result,)


@dataclass(frozen=True)
class Layer:
    """A recurrent node."""

    key: str

    def __call__(self, model: OnnxModel, given: list[Tensor | None], values: Values) -> Sequence[Tensor]:
        """Its outputs."""
        result: tuple[Tensor, ...] = model.layers[self.key](*given)
        return result


def _attributes(node: Any) -> dict[str, Any]:
    """A node's attributes by name, with bytes as text."""
    onnx, found = package(), {}
    for attribute in node.attribute:
        if attribute.ref_attr_name or attribute.type in (
            onnx.AttributeProto.TYPE_PROTO, onnx.AttributeProto.TYPE_PROTOS
        ):  # fmt: skip
            raise DataError(f"{place_of(node)}, attribute {attribute.name!r}: its kind of value is not supported")
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        elif isinstance(value, (list, tuple)) or hasattr(value, "__len__"):
            value = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in value]
        found[attribute.name] = value
    return found


def _check_attributes(place: str, attributes: Mapping[str, Any], known: Sequence[str]) -> None:
    for name in attributes:
        if name not in known:
            expected = f"expected {', '.join(known)}" if known else "expected none"
            raise DataError(f"{place}, attribute {name!r}: it is not supported; {expected}")


def _known(function: Callable[..., Any]) -> list[str]:
    """The attributes that a function takes."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # torch's own functions take inputs only
        return []
    return [p.name for p in parameters if p.kind == p.KEYWORD_ONLY]


def _constant(node: Any) -> Tensor:
    """The value of a Constant node."""
    attributes = _attributes(node)
    kinds = ("value", "value_float", "value_floats", "value_int", "value_ints")
    _check_attributes(place_of(node), attributes, kinds)
    result: Tensor = FUNCTIONS["Constant"](**attributes)
    return result


def _opset(model: Any) -> int:
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            return int(entry.version)
    raise DataError("the model has no opset of ONNX's own operators")


def _declared(value: Any) -> tuple[torch.dtype, list[int | None] | None]:
    """Type and shape of an input; None: free."""
    if not value.type.HasField("tensor_type"):
        raise DataError(f"the input {value.name!r} is no tensor; expected tensors only")
    tensor = value.type.tensor_type
    dtype = torch_type(tensor.elem_type, f"the input {value.name!r}")
    if not tensor.HasField("shape"):
        return dtype, None
    return dtype, [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]


def _check_input(name: str, value: Any, dtype: torch.dtype, shape: list[int | None] | None) -> None:
    if not isinstance(value, Tensor):
        raise InputError(f"got {type(value).__name__} for the input {name!r}, expected a tensor")
    # A module may be moved to another floating dtype.
    if value.dtype != dtype and not (value.is_floating_point() and dtype.is_floating_point):
        raise InputError(f"got the input {name!r} of {value.dtype}, expected {dtype}")
    if shape is not None and (
        value.dim() != len(shape) or any(n not in (None, m) for n, m in zip(shape, value.shape, strict=True))
    ):
        want = ", ".join("any" if n is None else str(n) for n in shape)
        raise InputError(f"got the input {name!r} of shape {list(value.shape)}, expected [{want}]")


def _key(name: str, taken: Any) -> str:
    """A name for a module or a parameter that is not in use: torch allows no dots."""
    base = name.replace(".", "_") or "unnamed"
    key, k = base, 1
    while key in taken or hasattr(taken, key):
        key, k = f"{base}_{k}", k + 1
    return key
