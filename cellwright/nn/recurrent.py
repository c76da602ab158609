"""Layers of cells over sequences, for any cell."""

import copy
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ..errors import InputError, OptionError
from ..lang import Definition, Equations
from ..lang.cell import positive
from .cell import Cell
from .scan import Program, scan, source
from .sequences import check_state, read, reference, state_values
from .weights import initialise, new_parameters, weights_of

Layer = Equations | Definition


class Recurrent(nn.Module):
    """One or more layers of a cell, over sequences, in one or both directions of time.

        Recurrent(LSTMCell, 10, 20, num_layers=2)               one kind of cell; sizes as in torch.nn
        Recurrent([LSTMCell(10, 20), GRUCell(20, 30)])          one cell per layer, of any kinds and sizes

    Weights are named as in torch.nn: `weight_ih_l0`, `bias_hh_l1_reverse`, ... A `Cell` in a list lends its own.

    Args:
        cell: a class of cells (then the sizes follow), or a list with one cell per layer.
        input_size: I, features of one input.
        hidden_size: H, units of each layer.
        num_layers: L.
        bias: True, "input" (one bias per gate, on the side of the input) or False.
        batch_first: batched input and output are [B, T, ...] instead of [T, B, ...].
        dropout: rate in [0, 1) between layers, at the same time step, in training only (Zaremba et al. 2014).
        bidirectional: a second cell per layer runs against time; the outputs of both stand side by side.
        device, dtype: of the weights.
        options: values for the cell's options.
    """

    def __init__(
        self,
        cell: type[Equations] | Layer | Sequence[Layer],
        input_size: int | None = None,
        hidden_size: int | None = None,
        num_layers: int = 1,
        *,
        bias: bool | Literal["input"] = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
            raise OptionError(f"got dropout={dropout!r}, expected a rate in [0, 1)")
        self.batch_first, self.dropout, self.bidirectional = bool(batch_first), float(dropout), bool(bidirectional)
        self._listed = not isinstance(cell, type)
        if isinstance(cell, type):
            layers = _layers_of(cell, input_size, hidden_size, num_layers, self.directions, bias, options)
        else:
            given = (input_size, hidden_size) != (None, None) or num_layers != 1 or bias is not True or options
            layers = _listed_layers(cell, bool(given), self.directions)
        self._programs = [Program(_definition(layer)) for layer in layers]
        self.num_layers = len(layers)
        self.input_size = self.definitions[0].input_size
        self.hidden_size = self.definitions[-1].sizes["hidden_size"]
        self.bias = bias
        if dropout and self.num_layers == 1:
            warnings.warn(
                f"got dropout={dropout} with one layer; it acts between layers, so it does nothing here", stacklevel=2
            )
        self._shown = [_shown(layer) for layer in layers]
        # Cells with initial values of their own give them to the layer too.
        self._starters = {k: layer for k, layer in enumerate(layers) if isinstance(layer, Cell) and layer.starts_itself}
        like = _lent_weight(layers) if self._listed else None
        if like is not None:
            device, dtype = device or like.device, dtype or like.dtype
        drawn = []
        for k, layer in enumerate(layers):
            for suffix in ("", "_reverse")[: self.directions]:
                lends = self._listed and isinstance(layer, Cell) and not suffix
                own = _lent(layer) if lends else new_parameters(_definition(layer), device, dtype)
                for name, parameter in own.items():
                    self.register_parameter(f"{name}_l{k}{suffix}", parameter)
                if not lends:
                    drawn.append((k, suffix))
        for k, suffix in drawn:
            self._start(k, suffix)

    @property
    def directions(self) -> int:
        """D: 2 when bidirectional, else 1."""
        return 2 if self.bidirectional else 1

    @property
    def definitions(self) -> list[Definition]:
        """The traced equations of each layer."""
        return [program.definition for program in self._programs]

    @property
    def output_size(self) -> int:
        """Features of the output: D times the units of the last layer's first state."""
        return self.directions * self.definitions[-1].output_size

    def reset_parameters(self) -> None:
        """Draw new initial weights for all layers."""
        for k in range(self.num_layers):
            for suffix in ("", "_reverse")[: self.directions]:
                self._start(k, suffix)

    def _start(self, layer: int, suffix: str) -> None:
        weights = self._weights(layer, suffix)
        if layer not in self._starters:
            initialise(self.definitions[layer], weights)
            return
        twin = copy.copy(self._starters[layer])
        twin.__dict__["_parameters"] = weights
        twin.reset_parameters()

    def flatten_parameters(self) -> None:
        """Nothing to do: here for code written for torch.nn."""

    def source(self, target: str | None = None) -> str:
        """The code that a target runs for the layers, each form of cell once.

        "cpu": the LLVM modules that training on float32 inputs compiles, from what comes before the loop to the
        gradients of the weights. "torch": equations and plan, which the reference follows. None: the target in use.

        TargetError: an unknown target, or one that cannot run here.
        """
        return source({f"(layer {k})": program for k, program in enumerate(self._programs)}, target)

    def _weights(self, layer: int, suffix: str) -> dict[str, Tensor]:
        return weights_of(self, self.definitions[layer], f"_l{layer}{suffix}")

    def forward(
        self,
        x: Tensor | PackedSequence,
        state: Any = None,
        *,
        lengths: Sequence[int] | Tensor | None = None,
        reset: Tensor | None = None,
        return_states: bool = False,
        hx: Any = None,
    ) -> Any:
        """Run all layers over all steps.

        Args:
            x: [T, B, I], or [B, T, I] with batch_first, or unbatched [T, I], or a PackedSequence. Integers [T, B] or
                [T] stand for one-hot vectors.
            state: before the first step; None: zero. The form is that of the result.
            lengths: [B] valid steps of each sequence, 0 to T. The output is zero beyond them, whatever x holds there.
            reset: of bool, [T, B] like x: true where a new sequence begins; the state is zero before this step.
            return_states: also return the states after every step.
            hx: torch.nn's name of `state`.

        Returns:
            output: [T, B, D*O] in the layout of x; PackedSequence for a packed input.
            state: after the last valid step. For a class of cells as in torch.nn: [L*D, B, units], or without B for
                unbatched input, as a tuple when the cell has several states. For a list of cells: a tuple with one
                entry per layer, each [D, B, units] or a tuple of such.
            states: only with return_states; like `state`, with one more leading dimension T.
        """
        owner = type(self).__name__
        like = reference(self._weights(0, ""), x)
        state = hx if state is None else state
        batch = read(
            x, lengths, reset, input_size=self.input_size, batch_first=self.batch_first, like=like, owner=owner
        )
        befores = self._read_state(state, batch.x.shape[1], batch.batched, like)
        output, scans = batch.x, []
        for k, program in enumerate(self._programs):
            if k and self.dropout:
                output = F.dropout(output, self.dropout, self.training)
            pair = [
                scan(
                    program,
                    self._weights(k, suffix),
                    output,
                    befores[k][direction],
                    reverse=bool(direction),
                    valid=batch.valid,
                    reset=batch.reset,
                    every=return_states,
                )
                for direction, suffix in enumerate(("", "_reverse")[: self.directions])
            ]
            output = torch.cat([s.output for s in pair], -1) if len(pair) > 1 else pair[0].output
            scans.append(pair)
        result = (batch.lay_out(output), self._give_state([[s.last for s in pair] for pair in scans], batch.batched))
        if return_states:
            return (*result, self._give_state([[s.states for s in pair] for pair in scans], batch.batched))
        return result

    def _read_state(self, state: Any, B: int, batched: bool, like: Tensor) -> list[list[dict[str, Tensor]]]:
        """The initial states by layer, direction and name, each [B, units]."""
        D, owner = self.directions, type(self).__name__
        if state is None:
            return [
                [{n: like.new_zeros(B, d.state_size(n)) for n in d.states} for _ in range(D)] for d in self.definitions
            ]
        rows = (B,) if batched else ()

        def split(value: Any, count: int, definition: Definition) -> list[dict[str, Tensor]]:
            result: list[dict[str, Tensor]] = [{} for _ in range(count)]
            names = list(definition.states)
            for name, part in zip(names, state_values(value, names, owner), strict=True):
                part = check_state(name, part, (count, *rows, definition.state_size(name)), like)
                for into, one in zip(result, (part if batched else part.unsqueeze(1)).unbind(0), strict=True):
                    into[name] = one
            return result

        if not self._listed:
            flat = split(state, self.num_layers * D, self.definitions[0])
            return [flat[k * D : (k + 1) * D] for k in range(self.num_layers)]
        if not isinstance(state, (tuple, list)) or len(state) != self.num_layers:
            got = f"{len(state)} entries" if isinstance(state, (tuple, list)) else f"a {type(state).__name__}"
            raise InputError(f"got {got} as state of {owner}, expected a tuple with one entry for each layer")
        return [split(one, D, definition) for one, definition in zip(state, self.definitions, strict=True)]

    def _give_state(self, scans: list[list[dict[str, Tensor]]], batched: bool) -> Any:
        """States by layer, direction and name, each [..., B, units], in the form that the caller knows."""

        def join(directions: list[dict[str, Tensor]]) -> Any:
            parts = [torch.stack([d[name] for d in directions], -3) for name in directions[0]]
            parts = parts if batched else [p.squeeze(-2) for p in parts]
            return parts[0] if len(parts) == 1 else tuple(parts)

        if self._listed:
            return tuple(join(pair) for pair in scans)
        return join([direction for pair in scans for direction in pair])

    def last_output(self, state: Any) -> Tensor:
        """The output of the last layer after the last valid step of each direction: its part of a batched state.

        [B, D*O]. For an empty sequence it is the initial state.
        """
        layer = state[-1] if self._listed else state
        h = layer if isinstance(layer, Tensor) else layer[0]  # [.., B, O]; the first state is the output
        return torch.cat(h[-self.directions :].unbind(0), -1)

    def extra_repr(self) -> str:
        """What `print` shows."""
        flags = [f"{k}={getattr(self, k)}" for k in ("batch_first", "dropout", "bidirectional") if getattr(self, k)]
        flags += [f"bias={self.bias!r}"] if self.bias is not True else []
        return ", ".join((*self._shown, *flags))


def _definition(layer: Layer) -> Definition:
    return layer if isinstance(layer, Definition) else layer.definition()


def _shown(layer: Layer) -> str:
    """A layer with its sizes, and the options that are not at their defaults."""
    usual = {} if isinstance(layer, Definition) else layer.defaults()
    definition = _definition(layer)
    options = "".join(f", {k}={v!r}" for k, v in definition.options.items() if k not in usual or v != usual[k])
    return f"{definition.name}({definition.input_size}, {definition.sizes['hidden_size']}{options})"


def _lent(cell: Any) -> dict[str, nn.Parameter]:
    """The weights that a cell of a list lends to the layer."""
    own = weights_of(cell, cell.definition())
    for name, weight in own.items():
        if not isinstance(weight, nn.Parameter):
            raise OptionError(
                f"got a {type(cell).__name__} whose {name} is not a plain parameter, so it cannot be lent to a layer; "
                f"make the layer first, and parametrise its weights"
            )
    return own  # type: ignore[return-value]


def _lent_weight(layers: Sequence[Layer]) -> Tensor | None:
    """A weight of the cells of a list, which must agree in dtype and device."""
    lent = [w for layer in layers if isinstance(layer, Cell) for w in weights_of(layer, layer.definition()).values()]
    kinds = {(w.dtype, w.device) for w in lent}
    if len(kinds) > 1:
        found = ", ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds))
        raise OptionError(f"got cells with weights of {found} in one list, expected one dtype and one device")
    return lent[0] if lent else None


def _layers_of(
    cell: type[Equations],
    input_size: int | None,
    hidden_size: int | None,
    num_layers: int,
    directions: int,
    bias: bool | Literal["input"],
    options: dict[str, Any],
) -> list[Layer]:
    """One cell per layer from a class."""
    if not issubclass(cell, Equations):
        raise OptionError(f"got the class {cell.__name__} as cell, expected one derived from cellwright.Cell")
    size, hidden = positive("input_size", input_size), positive("hidden_size", hidden_size)
    layers: list[Layer] = []
    for _ in range(positive("num_layers", num_layers)):
        # On "meta", a Cell draws no weights of its own: the layer draws them, in the order of torch.nn.
        with torch.device("meta"):
            layers.append(cell(size, hidden, bias=bias, **options))
        size = directions * _definition(layers[-1]).output_size
    return layers


def _listed_layers(cell: Any, more: bool, directions: int) -> list[Layer]:
    """The cells of a list, checked to fit each other."""
    layers = list(cell) if isinstance(cell, (list, tuple)) else [cell]
    if not layers or not all(isinstance(layer, (Equations, Definition)) for layer in layers):
        got = ", ".join(type(layer).__name__ for layer in layers) or "an empty list"
        raise OptionError(f"got {got} as cell, expected a class of cells, or a list of cells such as LSTMCell(10, 20)")
    if more:
        raise OptionError("got sizes, num_layers, bias or options beside a list of cells, which have their own")
    for k, layer in enumerate(layers):
        if isinstance(layer, Cell) and any(layer is other for other in layers[:k]):
            raise OptionError(
                f"got the same cell again as layer {k}, which would share its weights; make one per layer"
            )
        before = directions * _definition(layers[k - 1]).output_size if k else _definition(layer).input_size
        if _definition(layer).input_size != before:
            raise OptionError(
                f"got layer {k} with input_size={_definition(layer).input_size}, "
                f"but layer {k - 1} gives {before} features"
            )
    return layers
