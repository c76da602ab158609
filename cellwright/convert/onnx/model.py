"""ONNX models as modules of torch: recurrent nodes become layers of this package, with what else stands around."""

import inspect
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import CellwrightError, DataError, InputError
from ..limits import one_line
from .file import LIMIT, attributes_of, check_attributes, load, place_of, short, torch_type
from .functions import FUNCTIONS, SINCE, constants_of
from .recurrent import ATTRIBUTES, WEIGHTS, Fused, Recurrence
from .scan.loop import Loop, loop_attributes
from .scan.step import Around, step_of

Values = dict[str, Tensor]
Constants = ChainMap[str, Tensor | None]  # by name, the innermost graph first; None: an input hides it
# From the model, a node's inputs (None: left away) and all values that it can see, to its outputs.
Call = Callable[["OnnxModel", list[Tensor | None], Values], Sequence[Tensor]]


def from_onnx(source: Any) -> "OnnxModel":
    """An ONNX model as a module of torch, with its weights as parameters; needs the package onnx.

    Every RNN, LSTM and GRU node becomes one `cellwright.Recurrent` per direction, under `model.layers`, with every
    attribute that these operators have. So does a `Scan` whose body the language of cells has words for; the body of
    any other runs step by step in torch. Around them are the usual operators for shapes, arithmetic and reductions.

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
        self._names, self._constants, self._bytes = _Names(), 0, 0
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

    def recurrence(self, node: Any) -> Recurrence:
        """What runs an RNN, LSTM or GRU node of the model's graph."""
        calls = {outputs: call for _, call, _, outputs in self._main._calls}
        call = calls[tuple(node.output)]
        assert isinstance(call, Layer)
        return self.layers[call.key]  # type: ignore[return-value]

    def add(self, node: Any, layer: nn.Module) -> str:
        """Keep a recurrent node: its key. DataError: there are too many, or too many weights.

        Nodes may share weights in the file, and have their own here.
        """
        self._bytes += sum(p.nbytes for p in layer.parameters())
        if len(self.layers) >= _LAYERS:
            raise DataError(f"{place_of(node)}: it is one of more than {_LAYERS:,} recurrent nodes; expected fewer")
        if self._bytes > LIMIT:
            raise DataError(
                f"{place_of(node)}: with it, the recurrent nodes have {self._bytes:,} bytes of weights of their own, "
                f"expected {LIMIT:,} at most"
            )
        key = self._names.new(node.name or node.op_type, self.layers)
        self.layers[key] = layer
        return key

    def hold(self, name: str, value: Tensor) -> tuple[str, bool]:
        """Keep a constant: its key, and whether it is a weight, as all are that are floating and no single number."""
        trained = value.is_floating_point() and bool(value.dim())
        if trained:
            key = self._names.new(name, self.weights)
            self.weights[key] = nn.Parameter(value)
        else:
            key, self._constants = f"constant {self._constants}", self._constants + 1
            self.register_buffer(key, value, persistent=False)
        return key, trained

    def held(self, key: str, trained: bool) -> Tensor:
        """The present value of a constant."""
        value: Tensor = self.weights[key] if trained else getattr(self, key)
        return value


_LAYERS = 1000
_READINGS = 30_000  # nodes looked at, beyond which a `Scan` is not read as a layer: it takes all that stand before it
# What torch and Python raise for values that do not fit an operator.
_FAULTS = (
    ArithmeticError, AttributeError, LookupError, MemoryError, NotImplementedError, RuntimeError, TypeError, ValueError,
)  # fmt: skip


class Block:
    """A graph, or the body of a `Scan`, ready to run. `around`: the constants of the graphs that it stands in."""

    def __init__(self, model: OnnxModel, graph: Any, around: Constants) -> None:
        own = constants_of(graph)
        nodes = [node for node in graph.node if node.op_type != "Constant" or not node.output[0]]
        self.inputs = tuple(v.name for v in graph.input if v.name not in own)
        constants: Constants = ChainMap({**dict.fromkeys(self.inputs), **own}, around)
        self.outputs = tuple(v.name for v in graph.output)
        calls, before, readings = [], list[tuple[Any, dict[str, Any]]](), 0
        for k, node in enumerate(nodes):
            # Only what stands in the model's own graph is there once for all steps.
            tried = node.op_type == "Scan" and len(around.maps) == 1
            readings += k + len(own) if tried else 0
            step = _step(model, node, before, constants) if tried and readings <= _READINGS else None
            calls.append(_call(model, node, constants) if step is None else step)
            before.append((node, attributes_of(node)))
        used = set(self.outputs)
        self._calls: list[tuple[str, Call, tuple[str, ...], tuple[str, ...]]] = []
        for node, (call, reads) in reversed(list(zip(nodes, calls, strict=True))):
            # What a step has made its own need not be computed.
            if not isinstance(call, Function) or used.intersection(node.output):
                used |= {*reads, *(() if isinstance(call, Layer) else _inside(node))}
                self._calls.append((place_of(node), call, reads, tuple(node.output)))
        self._calls.reverse()
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
                raise InputError(f"{place}: {one_line(error)}") from error
            if any(outputs[len(found) :]):
                raise InputError(f"{place}: it gives {len(found)} output(s), the model asks for {len(outputs)}")
            values.update((name, value) for name, value in zip(outputs, found, strict=False) if name)
        return [values[name] for name in self.outputs]


def _call(model: OnnxModel, node: Any, constants: Constants) -> tuple[Call, tuple[str, ...]]:
    """How to run one node, and what it reads. DataError: its operator, an attribute or a type is not supported."""
    place, op, attributes = place_of(node), node.op_type, attributes_of(node)
    if node.domain not in ("", "ai.onnx") or op not in (*FUNCTIONS, *ATTRIBUTES, "Scan"):
        raise DataError(f"{place}: this operator is not supported; expected {', '.join([*ATTRIBUTES, 'Scan'])} "
                        f"and {', '.join(FUNCTIONS)}")  # fmt: skip
    if model.opset < SINCE.get(op, 1):
        raise DataError(f"{place}: got the operator of opset {model.opset}, expected opset {SINCE[op]} or newer")
    reads = tuple(node.input)
    if op in FUNCTIONS:
        if op == "Split":
            attributes.setdefault("num_outputs", len(node.output))
        check_attributes(place, attributes, _known(FUNCTIONS[op]))
        if op == "Cast":
            torch_type(attributes["to"], f"{place}, attribute 'to'")
        return Function(op, attributes), reads
    if op in ATTRIBUTES:
        check_attributes(place, attributes, ATTRIBUTES[op])
        names = [node.input[k] if k < len(node.input) else "" for k in WEIGHTS[op]]
        fixed = all(not name or constants.get(name) is not None for name in names)
        weights = [constants.get(name) for name in names] if fixed else None
        if fixed:  # they become those of the layer
            reads = tuple("" if k in WEIGHTS[op] else name for k, name in enumerate(reads))
        return Layer(model.add(node, Recurrence(place, op, attributes, weights))), reads
    check_attributes(place, attributes, loop_attributes(model.opset))
    return Loop(Block(model, attributes["body"], constants), attributes, place, model.opset), reads


def _step(
    model: OnnxModel, node: Any, before: Sequence[tuple[Any, dict[str, Any]]], constants: Constants
) -> tuple[Call, tuple[str, ...]] | None:
    """How to run a `Scan` node as one layer, and what it reads; None: it is a loop."""
    attributes = attributes_of(node)
    check_attributes(place_of(node), attributes, loop_attributes(model.opset))
    around = Around(before, constants, model._declared)
    step = step_of(node, attributes, model.opset, around)
    if step is None:
        return None
    return Layer(model.add(node, Fused(step))), (*node.input[: len(step.states)], step.x, *step.masks.values())


def _inside(node: Any) -> set[str]:
    """Every name of the graph around that the graphs inside a node read."""
    found: set[str] = set()
    for attribute in node.attribute:
        if attribute.HasField("g"):
            found.update(v.name for v in attribute.g.output)
            for inner in attribute.g.node:
                found.update(inner.input)
                found |= _inside(inner)
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


def _known(function: Callable[..., Any]) -> list[str]:
    """The attributes that a function takes."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # torch's own functions take inputs only
        return []
    return [p.name for p in parameters if p.kind == p.KEYWORD_ONLY]


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
    shape = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
    if any(n is not None and n < 0 for n in shape):
        raise DataError(f"the input {value.name!r} has the shape {short(shape)}, which no tensor can have")
    return dtype, shape


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


class _Names:
    """Names for modules and parameters: torch allows no dots, and each only once."""

    def __init__(self) -> None:
        self._used: dict[tuple[int, str], int] = {}  # how often each was asked for, so that many take no longer

    def new(self, name: str, taken: Any) -> str:
        """A name that is not in use."""
        base = name.replace(".", "_") or "unnamed"
        k = self._used.get((id(taken), base), 0)
        key = f"{base}_{k}" if k else base
        while key in taken or hasattr(taken, key):
            k += 1
            key = f"{base}_{k}"
        self._used[id(taken), base] = k
        return key
