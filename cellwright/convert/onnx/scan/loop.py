"""ONNX's `Scan`: a graph at every step, with the states of the step before."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ....errors import DataError, InputError

if TYPE_CHECKING:
    from ..model import Block, OnnxModel, Values

_SCAN = ("scan_input_axes", "scan_input_directions", "scan_output_axes", "scan_output_directions")
_FIRST = 8  # the version whose states and sequences have a batch before everything else, and lengths for it


def loop_attributes(opset: int) -> tuple[str, ...]:
    """The attributes of a `Scan` of this version."""
    return ("body", "num_scan_inputs", *(("directions",) if opset == _FIRST else _SCAN))


class Loop:
    """One `Scan` node, whose body is `body`."""

    def __init__(self, body: "Block", attributes: Mapping[str, Any], place: str, opset: int) -> None:
        self.body, self.scanned, self.batched = body, int(attributes["num_scan_inputs"]), opset == _FIRST
        self.states = len(body.inputs) - self.scanned
        results = len(body.outputs) - self.states
        if self.scanned < 1 or self.states < 0 or results < 0:
            raise DataError(
                f"{place}, attribute 'num_scan_inputs': got {self.scanned}, but the body has {len(body.inputs)} inputs "
                f"and {len(body.outputs)} outputs"
            )

        def each(name: str, count: int, allowed: Sequence[int] | None) -> list[int]:
            values = list(attributes.get(name) or [0] * count)
            if len(values) != count or (allowed is not None and not set(values) <= set(allowed)):
                kind = f"numbers of {list(allowed)}" if allowed else "numbers"
                raise DataError(f"{place}, attribute {name!r}: got {values}, expected {count} {kind}")
            return values

        self.axes = each("scan_input_axes", self.scanned, None)
        self.backwards = each("directions" if self.batched else "scan_input_directions", self.scanned, (0, 1))
        self.output_axes = each("scan_output_axes", results, None)
        self.prepends = each("scan_output_directions", results, (0, 1))

    def __call__(self, model: "OnnxModel", given: list[Tensor | None], values: "Values") -> list[Tensor]:
        """The states after the last step, then what was collected at every step."""
        lengths = given[0] if self.batched else None
        full = [v for v in (given[1:] if self.batched else given) if v is not None]
        if len(full) != len(self.body.inputs):
            raise InputError(f"got {len(full)} inputs, the body takes {len(self.body.inputs)}")
        if not self.batched:
            return self.run(model, full[: self.states], full[self.states :], values)
        T = full[self.states].shape[1]
        each = [T] * len(full[-1]) if lengths is None else [int(n) for n in lengths.tolist()]
        if len(each) != len(full[-1]) or any(not 0 <= n <= T for n in each):
            raise InputError(f"got the lengths {each} for {len(full[-1])} sequences of {T} steps")
        rows = []
        for k, n in enumerate(each):
            row = [v[k] for v in full]
            found = self.run(model, row[: self.states], [x[:n] for x in row[self.states :]], values)
            collected = [torch.cat([x, x.new_zeros(T - n, *x.shape[1:])]) for x in found[self.states :]]
            rows.append([*found[: self.states], *collected])
        return [torch.stack(column) for column in zip(*rows, strict=True)]

    def run(self, model: "OnnxModel", states: list[Tensor], sequences: list[Tensor], values: "Values") -> list[Tensor]:
        """All steps of one set of sequences."""
        sequences = [x.movedim(axis, 0) for x, axis in zip(sequences, self.axes, strict=True)]
        T = len(sequences[0])
        if any(len(x) != T for x in sequences):
            raise InputError(f"got sequences of {', '.join(str(len(x)) for x in sequences)} steps, expected as many")
        rows = [x.flip(0) if back else x for x, back in zip(sequences, self.backwards, strict=True)]
        rows = rows if T else [x.new_zeros(1, *x.shape[1:]) for x in rows]  # for the shapes
        collected: list[list[Tensor]] = [[] for _ in self.output_axes]
        after = states
        for t in range(max(T, 1)):
            now = dict(zip(self.body.inputs, [*after, *(x[t] for x in rows)], strict=True))
            found = self.body.run(model, now, values)
            after = found[: self.states]
            for into, value in zip(collected, found[self.states :], strict=True):
                into.append(value)
        outputs = []
        for steps, axis, prepends in zip(collected, self.output_axes, self.prepends, strict=True):
            result = torch.stack(steps[::-1] if prepends else steps)[:T]
            outputs.append(result.movedim(0, axis))
        return [*(after if T else states), *outputs]
