"""Layers as ONNX models: the operators RNN, LSTM and GRU where the equations are theirs, `Scan` for all other cells."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ... import __version__
from ...emit import to_onnx as emit
from ...errors import DataError, OptionError
from ...lang import Definition
from ...nn import Recurrent
from ...nn.weights import whole as dense
from .file import LIMIT, package
from .operators import Operator, operator_of, weights_for


def to_onnx(
    layer: Recurrent,
    path: str | os.PathLike[str] | None = None,
    *,
    lengths: bool = False,
    reset: bool = False,
    integer: bool = False,
    symbols: Tensor | None = None,
    output: nn.Linear | None = None,
) -> Any:
    """A layer as an ONNX model (opset 21) for one step or more and any number of sequences; needs the package onnx.

    Where the equations are those of ONNX's RNN, LSTM or GRU, the layer becomes that operator, else a `Scan`. In float64
    and with resets it is always a `Scan`: ONNX Runtime has the operators in float32 only, and they know no resets.

    Inputs: `x` [T, B, I] (or [B, T, I] with batch_first); `lengths` and `reset` if asked for, as the layer takes them;
    the states before the first step, `h0` [L*D, B, units] and so on. Outputs: `output` (with merge="none" also
    `output_reverse`), and the states after the last valid step, `hn` and so on. For layers of a list of cells the
    states stand apart: `h0_l0` [D, B, units], `h0_l1`. Dropout is left out, zoneout is what it is in evaluation. First
    states that were learned are inputs like others; those after a reset are in the model.

    Args:
        layer: RNN, LSTM, GRU or Recurrent, in float32 or float64 (which ONNX Runtime has no erf for).
        path: of the file; None: none is written.
        lengths: the model takes `lengths` [B], int64, 0 to T.
        reset: the model takes `reset`, of bool, laid out like x.
        integer: x holds int64 [T, B], which stand for one-hot vectors, or for rows of `symbols`.
        symbols: [V, I], such as the weight of an embedding: x is looked up in it.
        output: what follows the layer, such as the logits of a character model.

    Returns:
        The `onnx.ModelProto`. OptionError: what cannot be exported. DataError: the file cannot be written.
    """
    onnx = package()
    if not isinstance(layer, Recurrent):
        raise OptionError(
            f"got a {type(layer).__name__} to export, expected RNN, LSTM, GRU or Recurrent; Recurrent([cell]) makes "
            "a layer of a cell"
        )
    if symbols is not None and (symbols.dim() != 2 or symbols.shape[1] != layer.input_size):
        raise OptionError(f"got symbols of shape {list(symbols.shape)}, expected [V, {layer.input_size}]")
    if output is not None and layer.merge == "none":
        raise OptionError("got an output layer and merge='none', which has two outputs; expected one, such as the sum")
    equations = layer.equations(training=False)
    weights = [
        {k: _array(v) for k, v in dense(definition, layer._weights(n, suffix)).items()}
        for n, definition in enumerate(equations)
        for suffix in ("", "_reverse")[: layer.directions]
    ]
    more = [t for t in (symbols, *(() if output is None else output.parameters())) if t is not None]
    dtype = _dtype([w.dtype for one in weights for w in one.values()] + [_array(t).dtype for t in more])
    export = _Export(layer, equations, weights, emit.Builder(dtype), lengths, reset, integer or symbols is not None)
    result, last = export.run(symbols)
    if output is not None:
        result = export.linear(result, output)
    model = export.model(onnx, result, last, layer.output_size if output is None else output.out_features)
    size = model.ByteSize()
    if size > LIMIT:
        raise OptionError(f"the model takes {size} bytes, and an ONNX file holds {LIMIT}; split the layer")
    onnx.checker.check_model(model)
    if path is not None:
        _write(Path(path), model.SerializeToString())
    return model


def _array(tensor: Tensor) -> NDArray[Any]:
    if tensor.dtype not in (torch.float32, torch.float64):
        raise OptionError(f"got weights of {tensor.dtype}, expected float32 or float64; layer.float() converts them")
    array: NDArray[Any] = tensor.detach().cpu().numpy()
    return array


def _dtype(found: list[np.dtype[Any]]) -> np.dtype[Any]:
    kinds = sorted({d.name for d in found})
    if len(kinds) > 1:
        raise OptionError(f"got weights of {' and '.join(kinds)}, expected one dtype")
    return np.dtype(kinds[0] if kinds else "float32")


def _write(path: Path, data: bytes) -> None:
    """A file with this content, or none."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise DataError(f"{path} cannot be written: {error.strerror or error}; name another file") from None


@dataclass
class _Export:
    """One export: the nodes so far, and what they need to know of the layer."""

    layer: Recurrent
    equations: list[Definition]  # of each layer, in evaluation
    weights: list[dict[str, NDArray[Any]]]  # of each layer and direction
    b: emit.Builder
    lengths: bool
    reset: bool
    whole: bool
    present: str = ""  # [B, 1] of bool: the sequence has a step

    def run(self, symbols: Tensor | None) -> tuple[str, list[dict[str, str]]]:
        """The layers, one after the other: names of the output [T, B, O], and of each one's states [D, B, units]."""
        b = self.b
        for name in ("output", "output_reverse", *self._inputs(), *self._state_shapes("n")):
            b.name(name)
        x, masks = self._sequences()
        states = self._states()
        whole = self.whole
        if symbols is not None:
            x, whole = b.op("Gather", b.constant(_array(symbols), "symbols"), x, axis=0), False
        last = []
        for k, (definition, before) in enumerate(zip(self.equations, states, strict=True)):
            operator = operator_of(definition) if not self.reset and b.dtype == np.float32 else None
            below = x
            if operator is None:
                x, after = self._scans(k, x, masks, before, whole)
            else:
                x = emit.one_hot(b, x, definition.input_size) if whole else x
                x, after = self._operator(k, operator, definition, x, before)
            x = self._past(k, below, self._merged(x), masks, whole)
            whole = False
            last.append(after)
        return x, last

    def _states(self) -> list[dict[str, str]]:
        """The names of the states before the first step, by layer, [D, B, units] each."""
        b, L, D = self.b, self.layer.num_layers, self.layer.directions
        if self.layer._listed:
            return [{n: f"{n}0_l{k}" for n in d.states} for k, d in enumerate(self.equations)]
        parts: dict[str, tuple[str, ...]] = {}
        for name in self.equations[0].states:
            hints = tuple(f"{name}0_l{k}" for k in range(L))
            parts[name] = (
                b.many("Split", f"{name}0", b.numbers(*[D] * L), outputs=hints, axis=0) if L > 1 else (f"{name}0",)
            )
        return [{name: values[k] for name, values in parts.items()} for k in range(L)]

    def _sequences(self) -> tuple[str, dict[str, str]]:
        """The names of x [T, B, ...] and of the masks [T, B, 1]."""
        b, masks = self.b, {}
        x = "x"
        if self.layer.batch_first:
            x = b.op("Transpose", x, perm=[1, 0] if self.whole else [1, 0, 2])
        if self.lengths:
            steps = b.op("Gather", b.op("Shape", x), b.number(0), axis=0)
            each = b.op("Range", b.number(0), steps, b.number(1))
            inside = b.op("Less", b.op("Unsqueeze", each, b.numbers(1)), "lengths")  # [T, B]
            if self.whole:
                x = b.op("Where", inside, x, b.number(0))  # padding may hold anything
            masks["valid"] = b.op("Unsqueeze", inside, b.numbers(2))
            self.present = b.op("Unsqueeze", b.op("Less", b.number(0), "lengths"), b.numbers(1))
        if self.reset:
            reset = b.op("Transpose", "reset", perm=[1, 0]) if self.layer.batch_first else "reset"
            reset = b.op("And", reset, inside) if self.lengths else reset
            masks["reset"] = b.op("Unsqueeze", reset, b.numbers(2))
        return x, masks

    def _scans(
        self, k: int, x: str, masks: dict[str, str], before: dict[str, str], whole: bool
    ) -> tuple[str, dict[str, str]]:
        """One layer as a `Scan` for each direction."""
        b, D, outputs = self.b, self.layer.directions, []
        after: dict[str, list[str]] = {name: [] for name in before}
        plan = self.layer._programs[k].plan(self.reset, self.lengths)
        for d, suffix in enumerate(("", "_reverse")[:D]):
            start = {name: b.op("Gather", value, b.number(d), axis=0) for name, value in before.items()}
            given = dict(masks)
            if d and self.reset:
                # Against time, what begins at t + 1 must not be seen at t.
                rest = b.op("Slice", masks["reset"], b.numbers(1), b.numbers(2**31), b.numbers(0))
                first = b.op("Slice", masks["reset"], b.numbers(0), b.numbers(1), b.numbers(0))
                given["reset"] = b.op("Concat", rest, b.op("Xor", first, first), axis=0)
            result, last = emit.scan(
                b,
                plan,
                self.weights[k * D + d],
                {"x": x} | {name: b.real(mask) for name, mask in given.items()},
                start,
                whole=whole,
                reverse=bool(d),
                suffix=f"_l{k}{suffix}",
            )
            if self.lengths:
                result = b.op("Where", masks["valid"], result, b.constant(0.0))
            outputs.append(result)
            for name, value in last.items():
                after[name].append(b.op("Unsqueeze", value, b.numbers(0)))
        return self._joined(outputs, -1), {name: self._joined(values, 0) for name, values in after.items()}

    def _operator(
        self, k: int, operator: Operator, definition: Definition, x: str, before: dict[str, str]
    ) -> tuple[str, dict[str, str]]:
        """One layer as one of ONNX's own operators."""
        b, D = self.b, self.layer.directions
        sides = [weights_for(operator, definition, w) for w in self.weights[k * D : (k + 1) * D]]
        packed = {n: b.constant(np.stack([side[n] for side in sides]), f"{n}_l{k}") for n in sides[0]}
        attributes = {key: v * D if isinstance(v, list) else v for key, v in operator.attributes.items()}
        inputs = [x, packed["W"], packed["R"], packed.get("B", "")]
        inputs += [b.cast("lengths", emit.INT32) if self.lengths else "", *before.values()]
        if "P" in packed:
            inputs.append(packed["P"])
        names = (f"output_l{k}", *(f"{name}_l{k}_last" for name in before))
        result, *last = b.many(
            operator.op,
            *inputs,
            outputs=names,
            direction="bidirectional" if D == 2 else "forward",
            hidden_size=definition.sizes["hidden_size"],
            **attributes,
        )
        if self.lengths:
            # Of a sequence without a step, ONNX Runtime gives zeros instead of the state before.
            last = [b.op("Where", self.present, new, old) for new, old in zip(last, before.values(), strict=True)]
        if D == 1:
            result = b.op("Squeeze", result, b.numbers(1))
        else:
            result = b.op(
                "Reshape", b.op("Transpose", result, perm=[0, 2, 1, 3]), b.numbers(0, 0, 2 * definition.output_size)
            )
        return result, dict(zip(before, last, strict=True))

    def _merged(self, x: str) -> str:
        """The two directions as the layer gives them, from both side by side."""
        b, merge = self.b, self.layer.merge
        if self.layer.directions == 1 or merge in ("concat", "none"):
            return x
        total = b.op("Add", *self._halves(x))
        return total if merge == "sum" else b.op("Mul", total, b.constant(0.5))

    def _halves(self, x: str) -> tuple[str, ...]:
        return self.b.many("Split", x, outputs=("forward", "backward"), axis=-1, num_outputs=2)

    def _past(self, k: int, x: str, output: str, masks: dict[str, str], whole: bool) -> str:
        """The output of a layer with what goes past it."""
        b, own = self.b, self.layer.shortcut_of(k)
        if own is None:
            return output
        x = emit.one_hot(b, x, self.equations[k].input_size) if whole else x
        x = b.op("Where", masks["valid"], x, b.constant(0.0)) if self.lengths else x
        if not own:
            return b.op("Add", output, x)
        weight, bias = map(_array, own)
        product = b.op("MatMul", x, b.constant(weight.T, f"weight_highway_l{k}"))
        gate = b.op("Sigmoid", b.op("Add", product, b.constant(bias, f"bias_highway_l{k}")))
        return b.op("Add", x, b.op("Mul", gate, b.op("Sub", output, x)))

    def _joined(self, values: list[str], axis: int) -> str:
        return self.b.op("Concat", *values, axis=axis) if len(values) > 1 else values[0]

    def linear(self, value: str, output: nn.Linear) -> str:
        """A dense layer after the last one."""
        b = self.b
        if output.in_features != self.layer.output_size:
            raise OptionError(
                f"got an output layer for {output.in_features} features, the layer gives {self.layer.output_size}"
            )
        result = b.op("MatMul", value, b.constant(_array(output.weight).T, "weight_output"))
        return result if output.bias is None else b.op("Add", result, b.constant(_array(output.bias), "bias_output"))

    def _state_shapes(self, when: str) -> dict[str, list[Any]]:
        """The shapes of all states before ("0") or after ("n") the sequence: "h0", or "h0_l0" and "h0_l1", ..."""
        layer, D = self.layer, self.layer.directions
        if layer._listed:
            pairs = [(f"_l{k}", d, D) for k, d in enumerate(self.equations)]
        else:
            pairs = [("", self.equations[0], D * layer.num_layers)]
        return {f"{n}{when}{end}": [rows, "batch", d.state_size(n)] for end, d, rows in pairs for n in d.states}

    def _inputs(self) -> dict[str, tuple[str, list[Any]]]:
        """Type and shape of every input of the model."""
        sequence: list[Any] = ["batch", "time"] if self.layer.batch_first else ["time", "batch"]
        kind = self.b.dtype.name
        found = {"x": ("int64", sequence) if self.whole else (kind, [*sequence, self.layer.input_size])}
        if self.lengths:
            found["lengths"] = ("int64", ["batch"])
        if self.reset:
            found["reset"] = ("bool", sequence)
        return found | {name: (kind, shape) for name, shape in self._state_shapes("0").items()}

    def model(self, onnx: Any, result: str, last: list[dict[str, str]], features: int) -> Any:
        """The finished model."""
        b = self.b
        if self.layer.batch_first:
            result = b.op("Transpose", result, perm=[1, 0, 2])
        results = self._halves(result) if self.layer.merge == "none" else (result,)
        ends = dict(zip(("output", "output_reverse"), results, strict=False))
        if self.layer._listed:
            ends |= {f"{name}n_l{k}": value for k, after in enumerate(last) for name, value in after.items()}
        else:
            ends |= {f"{name}n": self._joined([after[name] for after in last], 0) for name in last[0]}
        b.nodes += [emit.OnnxNode("Identity", (value,), (name,), {}) for name, value in ends.items()]
        sequence: list[Any] = ["batch", "time"] if self.layer.batch_first else ["time", "batch"]
        shapes = {name: [*sequence, features] for name in ends} | self._state_shapes("n")
        info, kind = onnx.helper.make_tensor_value_info, emit.TYPES[b.dtype.name]
        graph = onnx.helper.make_graph(
            [_node(onnx, node, kind) for node in b.nodes],
            type(self.layer).__name__,
            [info(name, emit.TYPES[of], shape) for name, (of, shape) in self._inputs().items()],
            [info(name, kind, shapes[name]) for name in ends],
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
