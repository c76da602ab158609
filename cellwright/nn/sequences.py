"""What a layer is given, brought into one form and checked: a batch of sequences, [T, B, ...], with its masks.

Everything that a caller may get wrong about shapes, dtypes, devices and lengths is answered here.
"""

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from ..errors import InputError
from ..lang import Definition


@dataclass(frozen=True)
class Sequences:
    """`x` [T, B, I] or integers [T, B]; `valid` and `reset` [T, B] of bool, or None; how the caller laid it out."""

    x: Tensor
    valid: Tensor | None
    reset: Tensor | None
    batched: bool
    batch_first: bool
    packed: PackedSequence | None

    def emptied(self, value: Tensor) -> Tensor:
        """Values [T, B, n] with zeros in the padding."""
        return value if self.valid is None else without_padding(value, self.valid)

    def held(self, t: int, after: tuple[Tensor, ...], before: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The states after step t, [B, n] each: in the padding those before it."""
        if self.valid is None:
            return after
        on = self.valid[t].unsqueeze(-1)
        return tuple(torch.where(on, a, b) for a, b in zip(after, before, strict=True))

    def lay_out(self, output: Tensor) -> Tensor | PackedSequence:
        """An output [T, B, O] in the layout in which x came."""
        if self.packed is not None:
            _, batch_sizes, order, inverse = self.packed
            lengths = _packed_lengths(self.packed)
            if order is not None:
                output, lengths = output.index_select(1, order), lengths[order.cpu()]
            data = pack_padded_sequence(output, lengths).data
            return PackedSequence(data, batch_sizes, order, inverse)
        if not self.batched:
            return output.squeeze(1)
        return output.transpose(0, 1) if self.batch_first else output


def one_state(state: Any, hx: Any) -> Any:
    """The one of the two names of the state before the first step that was given; None: neither."""
    if state is not None and hx is not None:
        raise InputError("got state= and hx=, which are two names for the state before the first step; give one")
    return hx if state is None else state


def read(
    x: Any, lengths: Any, reset: Any, *, input_size: int, batch_first: bool, like: Tensor, owner: str
) -> Sequences:
    """Check what a layer was given. `like` is one of its weights; `owner` names the layer in errors."""
    packed = x if isinstance(x, PackedSequence) else None
    if packed is not None:
        if not packed.data.shape[0]:
            raise InputError("got an empty PackedSequence, expected at least one step")
        if lengths is not None:
            raise InputError("got lengths together with a PackedSequence, which has its own; expected one of the two")
        x, _ = pad_packed_sequence(packed)
        lengths, batch_first = _packed_lengths(packed), False
    if not isinstance(x, Tensor):
        raise InputError(f"got a {type(x).__name__} as input of {owner}, expected a tensor or a PackedSequence")
    whole = not x.is_floating_point()
    batched = x.dim() == (2 if whole else 3)
    _check_x(x, batched, whole, input_size, batch_first, like, owner)
    x = x.long() if whole else x
    if not batched:
        x = x.unsqueeze(1)
    elif batch_first:
        x = x.transpose(0, 1)
    T, B = x.shape[:2]
    valid = valid_steps(lengths, T, B, x.device)
    _check_symbols(x, valid, input_size, owner)
    starts = _reset(reset, T, B, batched, batch_first and batched, x.device)
    return Sequences(x, valid, starts, batched, batch_first and batched, packed)


def read_beside(steps: Sequences, x: Tensor, memory: Any, lengths: Any, **common: Any) -> Sequences:
    """The same for a memory [S, B, M] beside sequences x [T, B, I], or [T, B], which were read as `steps`."""
    places = read(memory, lengths, None, **common)
    if not (steps.batched and places.batched and steps.x.shape[1] == places.x.shape[1]) or places.x.dim() != 3:
        raise InputError(f"got {list(x.shape)}, a memory {list(memory.shape)}, expected [T, B, I], floats [S, B, M]")
    return places


def without_padding(x: Tensor, valid: Tensor) -> Tensor:
    """x [T, B, ...] with zeros in the padding, whatever it holds there; no gradient comes from there either."""
    return x.masked_fill(~valid.reshape(*valid.shape, *[1] * (x.dim() - 2)), 0)


def reference(weights: Mapping[str, Tensor], x: Any) -> Tensor:
    """A tensor with the dtype and device that a layer works in: a weight; without weights, x."""
    for weight in weights.values():
        return weight
    return x if isinstance(x, Tensor) and x.is_floating_point() else torch.empty(0)


def check_state(name: str, value: Any, want: tuple[int, ...], like: Tensor) -> Tensor:
    """`value`, which must be a state of the shape `want` with the dtype and device of `like`."""
    if not isinstance(value, Tensor) or tuple(value.shape) != want:
        got = f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise InputError(f"got state {name!r} of {got}, expected a tensor {list(want)}")
    mixed = torch.is_autocast_enabled(like.device.type) and value.is_floating_point()
    if (value.dtype != like.dtype and not mixed) or value.device != like.device:
        raise InputError(
            f"got state {name!r} of {value.dtype} on {value.device}, expected {like.dtype} on {like.device} "
            "like the weights"
        )
    return value


def state_values(state: Any, names: list[str], owner: str) -> tuple[Any, ...]:
    """The values of one state: a tensor for a cell with one state, a tuple for several."""
    values = (state,) if isinstance(state, Tensor) else state
    if not isinstance(values, (tuple, list)) or len(values) != len(names):
        got = f"{len(values)} values" if isinstance(state, (tuple, list)) else f"a {type(state).__name__}"
        want = f"a tuple of tensors ({', '.join(names)})" if len(names) > 1 else f"a tensor ({names[0]})"
        raise InputError(f"got {got} as state of {owner}, expected {want}")
    return tuple(values)


def step_state(definition: Definition, state: Any, B: int, like: Tensor, owner: str) -> dict[str, Tensor]:
    """The state of a cell before a step by name, [B, units] each."""
    sizes = {name: (B, definition.state_size(name)) for name in definition.states}
    values = zip(sizes.items(), state_values(state, list(sizes), owner), strict=True)
    return {name: check_state(name, value, size, like) for (name, size), value in values}


def _packed_lengths(packed: PackedSequence) -> Tensor:
    """Lengths in the caller's order, on the CPU."""
    sizes = packed.batch_sizes
    lengths = (sizes.unsqueeze(0) > torch.arange(int(sizes[0])).unsqueeze(1)).sum(1)
    return lengths if packed.unsorted_indices is None else lengths[packed.unsorted_indices.cpu()]


def _check_x(
    x: Tensor, batched: bool, whole: bool, input_size: int, batch_first: bool, like: Tensor, owner: str
) -> None:
    shape = tuple(x.shape)
    order = "[B, T" if batch_first else "[T, B"
    if x.dtype.is_complex or x.dtype == torch.bool:
        raise InputError(f"got an input of dtype {x.dtype}, expected {like.dtype}, or integers for one-hot vectors")
    if not batched and x.dim() != (1 if whole else 2):
        want = f"{order}] or [T]" if whole else f"{order}, I] or [T, I]"
        raise InputError(f"got an input of shape {shape} and dtype {x.dtype} for {owner}, expected {want}")
    if not whole and shape[-1] != input_size:
        raise InputError(
            f"input of shape {shape} has {shape[-1]} features in its last dimension, "
            f"{owner} expects input_size={input_size}"
        )
    if not whole and x.dtype != like.dtype and not torch.is_autocast_enabled(x.device.type):
        raise InputError(
            f"got an input of dtype {x.dtype}, the weights of {owner} have {like.dtype}; "
            f"convert one of them: x.to({like.dtype}) or layer.to({x.dtype})"
        )
    if x.device != like.device:
        raise InputError(
            f"got an input on {x.device}, the weights of {owner} are on {like.device}; "
            "move one of them: x.to(device) or layer.to(device)"
        )


def _check_symbols(x: Tensor, valid: Tensor | None, input_size: int, owner: str) -> None:
    if x.is_floating_point() or not x.numel() or torch.compiler.is_compiling():
        return  # in a graph, the look-up itself refuses what is no symbol
    wrong = (x < 0) | (x >= input_size)
    if valid is not None:
        wrong = wrong & valid
    if wrong.any():
        raise InputError(
            f"got the integer {int(x[wrong][0])} in the input; it stands for a one-hot vector, "
            f"and {owner} with input_size={input_size} expects 0 to {input_size - 1}"
        )


def valid_steps(lengths: Any, T: int, B: int, device: torch.device) -> Tensor | None:
    """[T, B] of bool from the lengths: true at the steps that count; None when all do.

    InputError for wrong lengths; in a graph of torch.compile a RuntimeError when it runs.
    """
    if lengths is None:
        return None
    if not isinstance(lengths, Tensor):
        try:
            if isinstance(lengths, (str, bytes, int)):
                raise TypeError
            lengths = torch.tensor([operator.index(n) for n in lengths], dtype=torch.int64)
        except (TypeError, ValueError, OverflowError, RuntimeError):
            raise InputError(f"got lengths {lengths!r}, expected whole numbers: a list or a tensor [B]") from None
    if lengths.is_floating_point() or lengths.dtype == torch.bool or lengths.is_complex():
        raise InputError(f"got lengths of dtype {lengths.dtype}, expected integers")
    if tuple(lengths.shape) != (B,):
        raise InputError(f"got lengths of shape {tuple(lengths.shape)}, expected [{B}], one per sequence of the batch")
    lengths = lengths.to(device)
    wrong = (lengths < 0) | (lengths > T)
    if torch.compiler.is_compiling():
        # A graph has no branches that depend on values, and its text must not depend on T.
        torch._assert_async(~wrong.any(), "got lengths outside of 0 to T, the steps of the input")
    elif wrong.any():
        where = int(wrong.nonzero()[0])
        raise InputError(f"got the length {int(lengths[where])} for sequence {where}, expected 0 to T = {T}")
    valid: Tensor = torch.arange(T, device=device).unsqueeze(1) < lengths
    return None if not torch.compiler.is_compiling() and valid.all() else valid


def _reset(reset: Any, T: int, B: int, batched: bool, batch_first: bool, device: torch.device) -> Tensor | None:
    """[T, B] of bool from the caller's `reset`, which is laid out like x."""
    if reset is None:
        return None
    want = (T,) if not batched else (B, T) if batch_first else (T, B)
    if not isinstance(reset, Tensor) or reset.is_complex() or tuple(reset.shape) != want:
        got = f"shape {tuple(reset.shape)}" if isinstance(reset, Tensor) else type(reset).__name__
        raise InputError(f"got reset of {got}, expected a tensor of bool {list(want)}, laid out like the input")
    starts: Tensor = (reset != 0).to(device)
    return starts.unsqueeze(1) if not batched else starts.transpose(0, 1) if batch_first else starts
