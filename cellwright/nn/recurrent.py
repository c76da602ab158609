"""Layers of cells over sequences, for any cell."""

import copy
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ..errors import InputError, OptionError
from ..lang import Definition, Equations
from ..lang.cell import flag
from .cell import Cell
from .scan import Program, Scanned, scan, source
from .sequences import Sequences, check_state, one_state, read, reference, state_values
from .stack import Layer, definition_of, layers_of, lent, lent_kind, listed_layers, shown
from .weights import initialise, new_parameters, weights_of
from .wrappers import LockedDropout, RecurrentDropout, WeightDrop, Wrappers, Zoneout
from .wrappers.rates import kept_by_sequence, rate_of
from .wrappers.shortcuts import check_shortcuts, shortcut, shortcut_weights, start_shortcut


@dataclass(frozen=True)
class Trace:
    """What `Recurrent.trace` gives: output and state as from a call, and every named value of every step.

    values: gates, whatever else the equations name, and the states, named like weights: `i_l0`, `h_l1_reverse`; each
    [T, B, units] in the layout of the input, zero in the padding.
    """

    output: Any
    state: Any
    values: dict[str, Any]


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
        dropout: rate in [0, 1) between layers, a fresh mask at each step (Zaremba et al. 2014); `LockedDropout(rate)`:
            one mask per sequence. Whatever is random is so in training only.
        bidirectional: a second cell per layer runs against time.
        merge: of the outputs of both directions: "concat" (side by side), "sum", "mean", or "none": a pair, of which a
            next layer sees both side by side.
        recurrent_dropout: rate or `RecurrentDropout`, on the way of h to the next step (Gal & Ghahramani 2016).
        zoneout: rate, for all states but auxiliary ones, or `Zoneout`: units stay as they were (Krueger et al. 2017).
        weight_drop: rate or `WeightDrop`: zeros in the recurrent matrices (Merity et al. 2018).
        layer_norm: normalise every dense product of the equations over its units, with a gain `gain_ih`, `gain_hh`
            (Ba et al. 2016); a class of cells that has an option of this name does it in its own way.
        residual: add its input to the output of each layer with as many features in both (He et al. 2016), or
            "highway": mix them by a gate, `weight_highway` (Srivastava et al. 2015). States stay the cells' own.
        learn_initial_state: the state before the first step and after a reset is a weight, `initial_h`; first zero.
        state_clip: limit every state to [-limit, limit] at each step, or {"c": limit} (Sak et al. 2014).
        device, dtype: of the weights.
        options: values for the cell's options.
    """

    _watch: Any = None  # `gradient_norms`, while it looks

    def __init__(
        self,
        cell: type[Equations] | Layer | Sequence[Layer],
        input_size: int | None = None,
        hidden_size: int | None = None,
        num_layers: int = 1,
        *,
        bias: bool | Literal["input"] = True,
        batch_first: bool = False,
        dropout: float | LockedDropout = 0.0,
        bidirectional: bool = False,
        merge: Literal["concat", "sum", "mean", "none"] = "concat",
        recurrent_dropout: float | RecurrentDropout = 0.0,
        zoneout: float | Zoneout = 0.0,
        weight_drop: float | WeightDrop = 0.0,
        layer_norm: bool = False,
        residual: bool | Literal["highway"] = False,
        learn_initial_state: bool = False,
        state_clip: float | Mapping[str, float] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.locked = isinstance(dropout, LockedDropout)
        self.dropout = rate_of("dropout", dropout.rate if isinstance(dropout, LockedDropout) else dropout)
        self.batch_first, self.bidirectional = flag("batch_first", batch_first), flag("bidirectional", bidirectional)
        if merge not in ("concat", "sum", "mean", "none") or (merge != "concat" and not bidirectional):
            raise OptionError(
                f"got merge={merge!r} with bidirectional={bidirectional}, expected 'concat', or for both directions "
                "also 'sum', 'mean' or 'none'"
            )
        self.merge, self.residual = merge, residual
        self._suffixes = ("", "_reverse")[: self.directions]
        beside = self.directions if merge in ("concat", "none") else 1
        self._listed = not isinstance(cell, type)
        if isinstance(cell, type):
            if layer_norm and issubclass(cell, Equations) and "layer_norm" in cell.defaults():
                options, layer_norm = options | {"layer_norm": layer_norm}, False
            layers = layers_of(cell, input_size, hidden_size, num_layers, beside, bias, options)
        else:
            given = (input_size, hidden_size) != (None, None) or num_layers != 1 or bias is not True or options
            layers = listed_layers(cell, bool(given), beside)
        self._wrappers = Wrappers.of(
            recurrent_dropout, zoneout, weight_drop, layer_norm, learn_initial_state, state_clip
        )
        #: The traced equations of each layer.
        self.definitions = [self._wrappers.equations(definition_of(layer)) for layer in layers]
        # In evaluation and in training; without wrappers that make a difference, the same.
        self._programs = [Program(d) for d in self.equations(False)]
        self._training = [Program(d) for d in self.equations(True)] if self._wrappers.moded else self._programs
        self.num_layers = len(layers)
        self.input_size = self.definitions[0].input_size
        self.hidden_size = self.definitions[-1].sizes["hidden_size"]
        self.bias = bias
        if self.dropout and self.num_layers == 1:
            warnings.warn(
                f"got dropout={dropout} with one layer; it acts between layers, so it does nothing here", stacklevel=2
            )
        self._shown = [shown(layer) for layer in layers]
        # Cells with initial values of their own give them to the layer too.
        self._starters = {k: layer for k, layer in enumerate(layers) if isinstance(layer, Cell) and layer.starts_itself}
        device, dtype = lent_kind(layers if self._listed else [], device, dtype)
        drawn = []
        for k, (layer, definition) in enumerate(zip(layers, self.definitions, strict=True)):
            for suffix in self._suffixes:
                given = lent(layer) if self._listed and isinstance(layer, Cell) and not suffix else {}
                for name, parameter in (new_parameters(definition, device, dtype) | given).items():
                    self.register_parameter(f"{name}_l{k}{suffix}", parameter)
                drawn.append((k, suffix, given))
        fits = [beside * d.output_size == d.input_size for d in self.definitions]
        check_shortcuts(residual, fits)
        self._shortcuts = {k: list[str]() for k, fit in enumerate(fits) if fit and residual}
        for k, names in self._shortcuts.items():
            size = self.definitions[k].input_size
            for name, parameter in shortcut_weights(residual, size, device, dtype).items():
                self.register_parameter(f"{name}_l{k}", parameter)
                names.append(name)
        for k, suffix, given in drawn:
            self._start(k, suffix, given)
        self._start_shortcuts()

    @property
    def directions(self) -> int:
        """D: 2 when bidirectional, else 1."""
        return 2 if self.bidirectional else 1

    def equations(self, training: bool) -> list[Definition]:
        """The equations of each layer in training or in evaluation, with what its wrappers make of them."""
        return [self._wrappers.in_mode(definition, training) for definition in self.definitions]

    @property
    def output_size(self) -> int:
        """Features of the output (of each, when the two directions are not merged)."""
        return (self.directions if self.merge == "concat" else 1) * self.definitions[-1].output_size

    def reset_parameters(self) -> None:
        """Draw new initial weights for all layers."""
        for k in range(self.num_layers):
            for suffix in self._suffixes:
                self._start(k, suffix)
        self._start_shortcuts()

    def _start(self, layer: int, suffix: str, but: Iterable[str] = ()) -> None:
        weights = {name: w for name, w in self._weights(layer, suffix).items() if name not in but}
        if layer in self._starters and weights.keys() >= self._starters[layer].definition().params.keys():
            twin = copy.copy(self._starters[layer])
            twin.__dict__["_parameters"] = {name: weights.pop(name) for name in twin.definition().params}
            twin.reset_parameters()
        initialise(self.definitions[layer], weights)

    def _start_shortcuts(self) -> None:
        for k, names in self._shortcuts.items():
            start_shortcut({name: getattr(self, f"{name}_l{k}") for name in names})

    def shortcut_of(self, layer: int) -> tuple[Tensor, ...] | None:
        """The weights of the connection past a layer (none where it adds), or None where there is no connection."""
        if layer not in self._shortcuts:
            return None
        return tuple(getattr(self, f"{name}_l{layer}") for name in self._shortcuts[layer])

    def flatten_parameters(self) -> None:
        """Nothing to do: here for code written for torch.nn."""

    def source(self, target: str | None = None) -> str:
        """The code that a target runs for the layers, each form of cell once.

        "cpu": the LLVM modules that training on float32 inputs compiles, from what comes before the loop to the
        gradients of the weights. "torch": equations and plan, which the reference follows. None: the target in use.

        TargetError: an unknown target, or one that cannot run here.
        """
        return source({f"(layer {k})": program for k, program in enumerate(self._training)}, target)

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
            state: before the first step; None: zero, or what was learned. The form is that of the result.
            lengths: [B] valid steps of each sequence, 0 to T. The output is zero beyond them, whatever x holds there.
            reset: of bool, [T, B] like x: true where a new sequence begins, from the state that None stands for.
            return_states: also return the states after every step.
            hx: torch.nn's name of `state`.

        Returns:
            output: [T, B, D*O] in the layout of x (see `merge`); PackedSequence for a packed input.
            state: after the last valid step. For a class of cells as in torch.nn: [L*D, B, units], or without B for
                unbatched input, as a tuple when the cell has several states. For a list of cells: a tuple with one
                entry per layer, each [D, B, units] or a tuple of such.
            states: only with return_states; like `state`, with one more leading dimension T.
        """
        batch, befores = self._read(x, one_state(state, hx), lengths, reset)
        output, scans = self._run(batch, befores, every=return_states)
        last = self._give_state([[s.last for s in pair] for pair in scans], batch.batched)
        if return_states:
            return output, last, self._give_state([[s.states for s in pair] for pair in scans], batch.batched)
        return output, last

    def trace(
        self,
        x: Tensor | PackedSequence,
        state: Any = None,
        *,
        lengths: Sequence[int] | Tensor | None = None,
        reset: Tensor | None = None,
        hx: Any = None,
    ) -> Trace:
        """Run all layers and keep every named value of every step; arguments as for a call. The reference runs it."""
        batch, befores = self._read(x, one_state(state, hx), lengths, reset)
        output, scans = self._run(batch, befores, every=True, named=True)
        values = {
            f"{name}_l{k}{suffix}": batch.lay_out(batch.emptied(value))
            for k, pair in enumerate(scans)
            for suffix, one in zip(self._suffixes, pair, strict=True)
            for name, value in (one.named | one.states).items()
        }
        return Trace(output, self._give_state([[s.last for s in pair] for pair in scans], batch.batched), values)

    def _read(self, x: Any, state: Any, lengths: Any, reset: Any) -> tuple[Sequences, list[list[dict[str, Tensor]]]]:
        """What a call was given, checked: the inputs, and the initial states by layer, direction and name."""
        owner, like = type(self).__name__, reference(self._weights(0, ""), x)
        batch = read(
            x, lengths, reset, input_size=self.input_size, batch_first=self.batch_first, like=like, owner=owner
        )
        return batch, self._read_state(state, batch.x.shape[1], batch.batched, like)

    def _run(
        self, batch: Sequences, befores: list[list[dict[str, Tensor]]], *, every: bool = False, named: bool = False
    ) -> tuple[Any, list[list[Scanned]]]:
        """The output as the caller laid out the input, and what each layer and direction gives."""
        output, scans = batch.x, []
        for k, program in enumerate(self._training if self.training else self._programs):
            below = output
            if k and self.dropout and self.training:
                output = self._dropped(output, batch.reset)
            pair = []
            for direction, suffix in enumerate(self._suffixes):
                before = befores[k][direction]
                watched, weights, masks = self._prepared(k, suffix, program, output, before, batch)
                pair.append(scan(watched, weights, output, before, reverse=bool(direction), valid=batch.valid,
                                 reset=batch.reset, masks=masks, every=every, named=named))  # fmt: skip
            output = self._merged([s.output for s in pair])
            if k in self._shortcuts:
                own = {name: getattr(self, f"{name}_l{k}") for name in self._shortcuts[k]}
                output = shortcut(self.residual, own, below, output, batch.valid)
            scans.append(pair)
        if self.merge == "none":
            return tuple(batch.lay_out(one) for one in output.chunk(2, -1)), scans
        return batch.lay_out(output), scans

    def _prepared(
        self, k: int, suffix: str, program: Program, x: Tensor, before: dict[str, Tensor], batch: Sequences
    ) -> tuple[Program, dict[str, Tensor], dict[str, Tensor]]:
        """For one scan: its equations, as they are watched, its weights, and the masks that are drawn for it."""
        weights = self._weights(k, suffix)
        masks: dict[str, Tensor] = {}
        if self.training and self._wrappers.random:
            like = next(iter(before.values()))
            weights, masks = self._wrappers.draw(self.definitions[k], weights, x, like, batch.reset)
        if self._watch is not None:
            program, more = self._watch(f"l{k}{suffix}", program, before, batch)
            masks = masks | more
        return program, weights, masks

    def _dropped(self, output: Tensor, reset: Tensor | None) -> Tensor:
        """What the next layer sees of an output [T, B, n] in training."""
        if not self.locked:
            return F.dropout(output, self.dropout)
        T, B, n = output.shape
        return output * kept_by_sequence(self.dropout, (T, B, n), output, reset)

    def _merged(self, outputs: list[Tensor]) -> Tensor:
        if len(outputs) == 1:
            return outputs[0]
        if self.merge in ("concat", "none"):
            return torch.cat(outputs, -1)
        total = outputs[0] + outputs[1]
        return total if self.merge == "sum" else total / 2

    def _read_state(self, state: Any, B: int, batched: bool, like: Tensor) -> list[list[dict[str, Tensor]]]:
        """The initial states by layer, direction and name, each [B, units]."""
        D, owner = self.directions, type(self).__name__
        if state is None:
            return [[self._initial(k, suffix, B, like) for suffix in self._suffixes] for k in range(self.num_layers)]
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

    def _initial(self, layer: int, suffix: str, B: int, like: Tensor) -> dict[str, Tensor]:
        """The state that a caller leaves to the layer: what was learned, else zero."""
        definition = self.definitions[layer]
        learned = {n: getattr(self, f"{name}_l{layer}{suffix}") for n, name in definition.initial.items()}
        return {
            n: learned[n].expand(B, -1) if n in learned else like.new_zeros(B, definition.state_size(n))
            for n in definition.states
        }

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

        [B, output_size], merged like the outputs. For an empty sequence it is the initial state.
        OptionError: a shortcut goes past the last layer, so that its output is not a state.
        """
        if self.num_layers - 1 in self._shortcuts:
            raise OptionError(
                f"got a layer with residual={self.residual!r}, whose output after the last step is not its state; pool "
                "its outputs, such as pool='mean', or leave the shortcut away"
            )
        layer = state[-1] if self._listed else state
        h = layer if isinstance(layer, Tensor) else layer[0]  # [.., B, O]; the first state is the output
        return self._merged(list(h[-self.directions :].unbind(0)))

    def extra_repr(self) -> str:
        """What `print` shows."""
        flags = [f"{k}={getattr(self, k)}" for k in ("batch_first", "dropout", "bidirectional") if getattr(self, k)]
        usual = {"bias": True, "merge": "concat", "residual": False, "locked": False}
        flags += [
            f"{k}={getattr(self, k)!r}" for k, v in usual.items() if getattr(self, k) != v
        ] + self._wrappers.shown()
        return ", ".join((*self._shown, *flags))
