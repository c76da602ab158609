"""The recurrent nodes of an ONNX model, run by layers of this package."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import DataError, InputError
from ...lang import Definition
from ...nn import Recurrent
from ...nn.scan import Program, scan
from ...nn.sequences import check_state, read
from ..limits import one_line
from .equations import activations, cell_for
from .operators import ORDER, PEEPHOLES
from .scan.step import Step

_SHARED = ("activations", "activation_alpha", "activation_beta", "clip", "direction", "hidden_size", "layout")
ATTRIBUTES = {
    "RNN": _SHARED,
    "LSTM": (*_SHARED, "input_forget"),
    "GRU": (*_SHARED, "linear_before_reset"),
}
# Where a node has its inputs.
WEIGHTS = {"RNN": (1, 2, 3), "GRU": (1, 2, 3), "LSTM": (1, 2, 3, 7)}


class Recurrence(nn.Module):
    """One RNN, LSTM or GRU node: `layers` holds a `Recurrent` for each direction, made from constant weights.

    Args:
        place: how messages name the node.
        op: RNN, LSTM or GRU.
        attributes: of the node.
        weights: W, R and, if the node has them, B and P; None: they come with each call.
    """

    def __init__(self, place: str, op: str, attributes: Mapping[str, Any], weights: list[Tensor | None] | None) -> None:
        super().__init__()
        self._op, self._attributes = op, dict(attributes)
        self.direction = attributes.get("direction", "forward")
        if self.direction not in ("forward", "reverse", "bidirectional"):
            raise DataError(
                f"{place}, attribute 'direction': got {one_line(self.direction, 40)!r}, "
                "expected forward, reverse or bidirectional"
            )
        for name in ("layout", "input_forget"):
            if attributes.get(name, 0) not in (0, 1):
                raise DataError(f"{place}, attribute {name!r}: got {attributes[name]}, expected 0 or 1")
        if "clip" in attributes and not 0 < attributes["clip"] < float("inf"):
            raise DataError(f"{place}, attribute 'clip': got {attributes['clip']}, expected a number above 0")
        self._directions = 2 if self.direction == "bidirectional" else 1
        self._activations = activations(op, attributes, self._directions, place)
        self.layers = nn.ModuleList()
        if weights is not None:
            try:
                found = self._sides(weights)
            except InputError as error:
                raise DataError(f"{place}: {error}") from None
            for definition, values in found:
                layer = Recurrent([definition], dtype=values["weight_ih"].dtype)
                layer.load_state_dict({f"{name}_l0": value for name, value in values.items()})
                self.layers.append(layer)

    def _sides(self, weights: list[Tensor | None]) -> list[tuple[Definition, dict[str, Tensor]]]:
        """The cell of each direction, with its weights in this package's layout."""
        W, R, B, P = [*weights, None][:4]
        assert W is not None
        assert R is not None
        self._check_weights(W, R, B, P)
        found = []
        for d, acts in enumerate(self._activations):
            sizes = W.shape[2], R.shape[2]
            cell = cell_for(self._op, acts, self._attributes, sizes, B is not None, P is not None)
            b, p = (None if v is None else v[d] for v in (B, P))
            found.append((cell.definition(), _laid_out(self._op, cell.definition(), W[d], R[d], b, p)))
        return found

    def _check_weights(self, W: Tensor, R: Tensor, B: Tensor | None, P: Tensor | None) -> None:
        D, G = self._directions, len(ORDER[self._op])
        H = R.shape[-1] if R.dim() == 3 else 0
        told = self._attributes.get("hidden_size", H)
        if told != H or not H:
            raise InputError(f"attribute 'hidden_size' is {told}, but R has the shape {list(R.shape)}")
        want: list[tuple[str, Tensor | None, list[int]]] = [
            ("W", W, [D, G * H, W.shape[-1] if W.dim() else 0]),
            ("R", R, [D, G * H, H]),
            ("B", B, [D, 2 * G * H]),
            ("P", P, [D, 3 * H]),
        ]
        for name, value, shape in want:
            if value is not None and (list(value.shape) != shape or 0 in shape):
                raise InputError(f"{name} has the shape {list(value.shape)}, expected {shape}")
            if value is not None and not bool(value.isfinite().all()):
                raise InputError(f"{name} holds NaN or infinite numbers, expected finite ones")
            if value is not None and (value.dtype != W.dtype or not value.is_floating_point()):
                raise InputError(f"{name} has the type {value.dtype}, W has {W.dtype}; expected one floating type")

    def sides(self) -> list[Recurrent]:
        """The layer of each direction; none where the weights come with each call."""
        return list(self.layers)  # type: ignore[arg-type]

    def forward(
        self,
        x: Tensor,
        W: Tensor | None,
        R: Tensor | None,
        B: Tensor | None = None,
        lengths: Tensor | None = None,
        *more: Tensor | None,
    ) -> tuple[Tensor, ...]:
        """The node's outputs, from its inputs in ONNX's order; the states and P are `more`."""
        first, second, P = [*more, None, None, None][:3]
        if len(self.layers):
            sides = [(layer._programs[0], layer._weights(0, "")) for layer in self.sides()]
        else:
            sides = [(Program(definition), values) for definition, values in self._sides([W, R, B, P])]
        if self._attributes.get("layout", 0):  # [B, T, I] and [B, D, H]
            first, second = (None if s is None else s.transpose(0, 1) for s in (first, second))
        outputs, last = [], []
        for d, (program, weights) in enumerate(sides):
            definition, like = program.definition, weights["weight_ih"]
            if not x.is_floating_point():
                raise InputError(f"got an input of {x.dtype}, expected {like.dtype}")
            batch = read(
                x,
                lengths,
                None,
                input_size=definition.input_size,
                batch_first=bool(self._attributes.get("layout", 0)),
                like=like,
                owner=self._op,
            )
            before, rows = {}, batch.x.shape[1]
            for name, given in zip(definition.states, (first, second), strict=False):
                shape = (self._directions, rows, definition.state_size(name))
                zero = like.new_zeros(shape)
                before[name] = (zero if given is None else check_state(f"initial_{name}", given, shape, like))[d]
            backwards = self.direction == "reverse" or d == 1
            done = scan(program, weights, batch.x, before, reverse=backwards, valid=batch.valid)
            outputs.append(done.output)
            last.append(done.last)
        states = [torch.stack([after[name] for after in last]) for name in last[0]]  # [D, B, H]
        if self._attributes.get("layout", 0):
            return (torch.stack(outputs, 2).transpose(0, 1), *(s.transpose(0, 1) for s in states))
        return (torch.stack(outputs, 1), *states)


class Fused(nn.Module):
    """A `Scan` node whose body is the step of a cell: `layers` holds a `Recurrent` with its equations and weights."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        layer = Recurrent([step.plain], dtype=next((v.dtype for v in step.weights.values()), None))
        layer.load_state_dict({f"{name}_l0": value for name, value in step.weights.items()})
        self.layers = nn.ModuleList([layer])
        self._masked, self._short = Program(step.masked), Program(step.short)
        self._states, self._collected, self._masks = step.states, step.collected, tuple(step.masks)
        self._reverse, self._integer = step.reverse, step.integer

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """The node's outputs, from its states, x [T, B, I] or whole numbers [T, B], and masks [T, B, 1]."""
        count = len(self._states)
        x, masks = given[count], dict(zip(self._masks, given[count + 1 :], strict=True))
        layer: Recurrent = self.layers[0]  # type: ignore[assignment]
        definition, weights = layer.definitions[0], layer._weights(0, "")
        like = next(iter(weights.values()), given[0])
        if x.dim() != (2 if self._integer else 3):
            raise InputError(f"got an input of shape {list(x.shape)}, expected {2 if self._integer else 3} dimensions")
        if x.is_floating_point() == self._integer or (x.dim() == 3 and x.shape[2] != definition.input_size):
            kind = "whole numbers [T, B]" if self._integer else f"{like.dtype} [T, B, {definition.input_size}]"
            raise InputError(f"got an input of {x.dtype}, {list(x.shape)}, expected {kind}")
        if self._integer:
            x = torch.where(x < 0, x + definition.input_size, x)  # ONNX counts from the end, too
            if x.numel() and not bool(((x >= 0) & (x < definition.input_size)).all()):
                raise InputError(f"got an index outside of the {definition.input_size} rows of the matrix")
        T, B = x.shape[:2]
        before = {}
        for k, name in enumerate(definition.states):
            shape = (B, definition.state_size(name))
            before[name] = check_state(name, given[k], shape, like) if k < count else like.new_zeros(shape)
        for mask in masks.values():
            if list(mask.shape) != [T, B, 1]:
                raise InputError(f"got a mask of shape {list(mask.shape)}, expected {[T, B, 1]}")
        program, valid = self._masked, None
        if "valid" in masks:
            inside = masks["valid"].squeeze(2) != 0
            if bool((inside[1:] <= inside[:-1]).all()):  # sequences of some lengths: the rest need not be computed
                program, valid = self._short, inside
                del masks["valid"]
        done = scan(
            program, weights, x, before, reverse=self._reverse, valid=valid, masks=masks, every=bool(self._collected)
        )
        return (*(done.last[name] for name in self._states), *(done.states[name] for name in self._collected))


def _laid_out(
    op: str, definition: Definition, W: Tensor, R: Tensor, B: Tensor | None, P: Tensor | None
) -> dict[str, Tensor]:
    """The weights of one direction by this package's names, with its order of gates."""
    H = R.shape[1]
    sources = {"weight_ih": W, "weight_hh": R}
    if B is not None:
        sources["bias_ih"], sources["bias_hh"] = B.chunk(2)
    found = {}
    for name, param in definition.params.items():
        if name in PEEPHOLES:
            assert P is not None
            found[name] = P.narrow(0, PEEPHOLES.index(name) * H, H)
        else:
            order = ORDER[op]
            found[name] = torch.cat([sources[name].narrow(0, order.index(gate) * H, H) for gate in param.slices])
    return found
