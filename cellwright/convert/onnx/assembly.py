"""What every export shares: how sequences lie in a model, and how nodes and constants become a file."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ... import __version__
from ...emit import to_onnx as emit
from ...errors import DataError, OptionError

Inputs = dict[str, tuple[str, list[Any]]]  # type and shape, by name
Results = dict[str, tuple[str, list[Any]]]  # what an output is in the graph, and its shape


def array(tensor: Tensor) -> NDArray[Any]:
    """A weight. OptionError: of a dtype that ONNX Runtime does not compute with."""
    if tensor.dtype not in (torch.float32, torch.float64):
        raise OptionError(f"got weights of {tensor.dtype}, expected float32 or float64; layer.float() converts them")
    values: NDArray[Any] = tensor.detach().cpu().numpy()
    return values


def common_dtype(found: list[np.dtype[Any]]) -> np.dtype[Any]:
    """The one dtype of all weights. OptionError: there are two."""
    kinds = sorted({d.name for d in found})
    if len(kinds) > 1:
        raise OptionError(f"got weights of {' and '.join(kinds)}, expected one dtype")
    return np.dtype(kinds[0] if kinds else "float32")


def write(path: Path, data: bytes) -> None:
    """A file with this content, or none."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise DataError(f"{path} cannot be written: {error.strerror or error}; name another file") from None


@dataclass
class Assembly:
    """One export: the nodes so far in `b`, and how the model takes its sequences (see `to_onnx`).

    input_size: I. whole: x holds integers. inside: the name of what is true at the valid steps, [T, B] of bool.
    """

    b: emit.Builder
    input_size: int
    batch_first: bool
    lengths: bool
    reset: bool
    whole: bool
    inside: str = field(default="", init=False)

    @property
    def lead(self) -> list[Any]:
        """The shape of a sequence before its features."""
        return ["batch", "time"] if self.batch_first else ["time", "batch"]

    def sequences(self) -> tuple[str, dict[str, str]]:
        """The names of x [T, B, ...] and of the masks [T, B, 1]."""
        b, masks = self.b, {}
        x = b.op("Transpose", "x", perm=[1, 0] if self.whole else [1, 0, 2]) if self.batch_first else "x"
        if self.lengths:
            self.inside = b.op("Less", b.op("Unsqueeze", self.positions(x, 0), b.numbers(1)), "lengths")
            if self.whole:
                x = b.op("Where", self.inside, x, b.number(0))  # padding may hold anything
            masks["valid"] = b.op("Unsqueeze", self.inside, b.numbers(2))
        if self.reset:
            reset = b.op("Transpose", "reset", perm=[1, 0]) if self.batch_first else "reset"
            reset = b.op("And", reset, self.inside) if self.lengths else reset
            masks["reset"] = b.op("Unsqueeze", reset, b.numbers(2))
        return x, masks

    def positions(self, value: str, axis: int) -> str:
        """0, 1, ... along an axis."""
        b = self.b
        count = b.op("Gather", b.op("Shape", value), b.number(axis), axis=0)
        return b.op("Range", b.number(0), count, b.number(1))

    def looked_up(self, x: str, symbols: Tensor | None) -> tuple[str, bool]:
        """x with rows of `symbols` instead of integers, and whether it still holds integers."""
        if symbols is None:
            return x, self.whole
        return self.b.op("Gather", self.b.constant(array(symbols), "symbols"), x, axis=0), False

    def linear(self, value: str, layer: nn.Linear | None, features: int) -> tuple[str, int]:
        """What a dense layer, if there is one, makes of the last `features`, and how many these are then."""
        if layer is None:
            return value, features
        if layer.in_features != features:
            raise OptionError(f"got an output layer for {layer.in_features} features, the layer gives {features}")
        return self.dense(value, layer.weight, layer.bias, "output"), layer.out_features

    def dense(self, value: str, weight: Tensor, bias: Tensor | None, name: str) -> str:
        """W x + b at every place."""
        b = self.b
        result = b.op("MatMul", value, b.constant(array(weight).T, f"weight_{name}"))
        return result if bias is None else b.op("Add", result, b.constant(array(bias), f"bias_{name}"))

    def inputs(self) -> Inputs:
        """Type and shape of x and of what says where it is valid."""
        found: Inputs = {"x": ("int64", self.lead) if self.whole else self.real(*self.lead, self.input_size)}
        if self.lengths:
            found["lengths"] = ("int64", ["batch"])
        if self.reset:
            found["reset"] = ("bool", self.lead)
        return found

    def real(self, *shape: Any) -> tuple[str, list[Any]]:
        """An input of numbers."""
        return self.b.dtype.name, [*shape]

    def model(self, onnx: Any, name: str, inputs: Inputs, results: Results) -> Any:
        """The finished model; `name` is that of its graph."""
        b = self.b
        b.nodes += [emit.OnnxNode("Identity", (value,), (name,), {}) for name, (value, _) in results.items()]
        info, kind = onnx.helper.make_tensor_value_info, emit.TYPES[b.dtype.name]
        graph = onnx.helper.make_graph(
            [_node(onnx, node, kind) for node in b.nodes],
            name,
            [info(name, emit.TYPES[of], shape) for name, (of, shape) in inputs.items()],
            [info(name, kind, shape) for name, (_, shape) in results.items()],
            [onnx.numpy_helper.from_array(value, name) for name, value in b.constants.items()],
        )
        return onnx.helper.make_model(
            graph,
            producer_name="cellwright",
            producer_version=__version__,
            ir_version=emit.IR_VERSION,
            opset_imports=[onnx.helper.make_opsetid("", emit.OPSET)],
        )


def _node(onnx: Any, node: emit.OnnxNode, kind: int) -> Any:
    attributes = {k: _body(onnx, v, kind) if isinstance(v, emit.Body) else v for k, v in node.attributes.items()}
    return onnx.helper.make_node(node.op, node.inputs, node.outputs, name=node.outputs[0], **attributes)


def _body(onnx: Any, body: emit.Body, kind: int) -> Any:
    info, unknown = onnx.helper.make_tensor_value_info, onnx.helper.make_empty_tensor_value_info
    return onnx.helper.make_graph(
        [_node(onnx, node, kind) for node in body.nodes],
        "step",
        [info(name, kind, ["batch", units]) if units else unknown(name) for name, units in body.inputs.items()],
        list(map(unknown, body.outputs)),
    )
