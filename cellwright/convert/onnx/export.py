"""Layers as ONNX models: the operators RNN, LSTM and GRU where the equations are theirs, `Scan` for all other cells."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ...emit import to_onnx as emit
from ...errors import OptionError
from ...lang import Definition
from ...nn import Attentive, Recurrent
from ...nn.weights import whole as dense
from .assembly import Assembly, Results, array, common_dtype, write
from .attentive import AttentiveExport
from .file import LIMIT, package
from .operators import Operator, operator_of, weights_for


def to_onnx(
    layer: Recurrent | Attentive,
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

    `Attentive` also has the input `memory` [S, B, M] (or [B, S, M]) and the output `weights` [T, B, S]; its states are
    `h0` [B, units] and so on.

    Args:
        layer: RNN, LSTM, GRU, Recurrent or Attentive, in float32 or float64 (which ONNX Runtime has no erf for).
        path: of the file; None: none is written.
        lengths: the model takes `lengths` [B], int64, 0 to T; with a memory also `memory_lengths` [B], 0 to S.
        reset: the model takes `reset`, of bool, laid out like x.
        integer: x holds int64 [T, B], which stand for one-hot vectors, or for rows of `symbols`.
        symbols: [V, I], such as the weight of an embedding: x is looked up in it.
        output: what follows the layer, such as the logits of a character model.

    Returns:
        The `onnx.ModelProto`. OptionError: what cannot be exported. DataError: the file cannot be written.
    """
    onnx = package()
    if not isinstance(layer, Recurrent | Attentive):
        raise OptionError(
            f"got a {type(layer).__name__} to export, expected RNN, LSTM, GRU, Recurrent or Attentive; "
            "Recurrent([cell]) makes a layer of a cell"
        )
    features = layer.input_size
    if symbols is not None and (symbols.dim() != 2 or symbols.shape[1] != features):
        raise OptionError(f"got symbols of shape {list(symbols.shape)}, expected [V, {features}]")
    whole = integer or symbols is not None
    more = [array(t) for t in (symbols, *(() if output is None else output.parameters())) if t is not None]
    builder = emit.Builder(common_dtype([array(p).dtype for p in layer.parameters()] + [a.dtype for a in more]))
    given = (builder, features, layer.batch_first, lengths, reset, whole)
    export = _Layers(*given, layer) if isinstance(layer, Recurrent) else AttentiveExport(*given, layer)
    model = export.run(onnx, symbols, output)
    size = model.ByteSize()
    if size > LIMIT:
        raise OptionError(f"the model takes {size} bytes, and an ONNX file holds {LIMIT}; split the layer")
    onnx.checker.check_model(model)
    if path is not None:
        write(Path(path), model.SerializeToString())
    return model


@dataclass
class _Layers(Assembly):
    """The export of `Recurrent`."""

    layer: Recurrent
    equations: list[Definition] = field(init=False)  # of each layer, in evaluation
    weights: list[dict[str, NDArray[Any]]] = field(init=False)  # of each layer and direction
    present: str = field(default="", init=False)  # [B, 1] of bool: the sequence has a step

    def __post_init__(self) -> None:
        self.equations = self.layer.equations(training=False)
        self.weights = [
            {k: array(v) for k, v in dense(definition, self.layer._weights(n, suffix)).items()}
            for n, definition in enumerate(self.equations)
            for suffix in ("", "_reverse")[: self.layer.directions]
        ]

    def run(self, onnx: Any, symbols: Tensor | None, output: nn.Linear | None) -> Any:
        """The layers, one after the other, as a model."""
        if output is not None and self.layer.merge == "none":
            raise OptionError(
                "got an output layer and merge='none', which has two outputs; expected one, such as the sum"
            )
        before, after = self._state_shapes("0"), self._state_shapes("n")
        for name in ("output", "output_reverse", *before, *after):
            self.b.name(name)
        x, masks = self.sequences()
        if self.lengths:
            zero = self.b.number(0)
            self.present = self.b.op("Unsqueeze", self.b.op("Less", zero, "lengths"), self.b.numbers(1))
        result, last = self._stack(*self.looked_up(x, symbols), masks)
        result, features = self.linear(result, output, self.layer.output_size)
        if self.layer.batch_first:
            result = self.b.op("Transpose", result, perm=[1, 0, 2])
        results = self._halves(result) if self.layer.merge == "none" else (result,)
        names = ("output", "output_reverse")[: len(results)]
        ends: Results = {name: (value, [*self.lead, features]) for name, value in zip(names, results, strict=True)}
        ends |= {name: (value, after[name]) for name, value in self._ends(last).items()}
        inputs = self.inputs() | {name: self.real(*shape) for name, shape in before.items()}
        return self.model(onnx, type(self.layer).__name__, inputs, ends)

    def _ends(self, last: list[dict[str, str]]) -> dict[str, str]:
        """The last states by the names of the outputs."""
        if self.layer._listed:
            return {f"{name}n_l{k}": value for k, after in enumerate(last) for name, value in after.items()}
        return {f"{name}n": self._joined([after[name] for after in last], 0) for name in last[0]}

    def _stack(self, x: str, whole: bool, masks: dict[str, str]) -> tuple[str, list[dict[str, str]]]:
        """The names of the output [T, B, O], and of each layer's states [D, B, units]."""
        b, last = self.b, []
        for k, (definition, before) in enumerate(zip(self.equations, self._states(), strict=True)):
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
            result, last, _ = emit.scan(
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
        gate = b.op("Sigmoid", self.dense(x, own[0], own[1], f"highway_l{k}"))
        return b.op("Add", x, b.op("Mul", gate, b.op("Sub", output, x)))

    def _joined(self, values: list[str], axis: int) -> str:
        return self.b.op("Concat", *values, axis=axis) if len(values) > 1 else values[0]

    def _state_shapes(self, when: str) -> dict[str, list[Any]]:
        """The shapes of all states before ("0") or after ("n") the sequence: "h0", or "h0_l0" and "h0_l1", ..."""
        layer, D = self.layer, self.layer.directions
        if layer._listed:
            pairs = [(f"_l{k}", d, D) for k, d in enumerate(self.equations)]
        else:
            pairs = [("", self.equations[0], D * layer.num_layers)]
        return {f"{n}{when}{end}": [rows, "batch", d.state_size(n)] for end, d, rows in pairs for n in d.states}
