"""The one mechanism of all conversions: arrays are taken apart into the pieces of the gates, and laid out again.

A piece belongs to one gate, g:

    W_g [H, I]   weights of the input        b_g [H]   bias beside W_g
    R_g [H, P]   weights of the state        d_g [H]   bias beside R_g
    p_g [H]      peephole                    B_g [H]   the only bias, b_g + d_g
    V   [P, H]   projection                            P, units of the output, is H without a projection

A convention writes each array of a framework as its pieces, side by side, with ";" before a new row: the kernel of a
TF1 cell is "W_i W_g W_f W_o; R_i R_g R_f R_o". What is said of one framework is such a table and nothing else.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError, OptionError

Array = NDArray[Any]
Pieces = dict[str, Array]
Problem = tuple[str, str]  # the name of an array, what is wrong with it
Form = tuple[Counter[str], ...]  # a shape in letters: [I + P, 4H] is (Counter(I=1, P=1), Counter(H=4))

_SHAPES = {"W": "HI", "R": "HP", "V": "PH"}  # all other pieces are vectors [H]
_BIASES = "bdB"


@dataclass(frozen=True)
class Convention:
    """How a framework stores one kind of cell.

    `framework`, `cells`: its name, and those of its classes. `kind`: ours, rnn, lstm or gru. `arrays`: the pieces of
    each array. `transposed`: matrices are [in, out]. `options`: values that our options have there. `may_lack_bias`: a
    cell without biases has no arrays for them; elsewhere they are zeros.
    """

    framework: str
    cells: tuple[str, ...]
    kind: str
    arrays: Mapping[str, str]
    transposed: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    may_lack_bias: bool = False

    @property
    def title(self) -> str:
        """The name for errors: Keras LSTM."""
        return f"{self.framework} {self.cells[0]}"

    def rows(self, name: str) -> list[list[str]]:
        """The pieces of an array, row by row."""
        return [row.split() for row in self.arrays[name].split(";")]

    def group(self, name: str) -> str:
        """Arrays of one group are there together: "p" peepholes, "V" projection, "B" biases, "W" all others."""
        letters = {piece[0] for row in self.rows(name) for piece in row}
        return "B" if letters <= set(_BIASES) else "W" if letters & {"W", "R"} else letters.pop()

    def needed(self, present: Iterable[str], bias: bool) -> list[str]:
        """The arrays of a cell that has at least those that are present; `bias`: and biases."""
        groups = {"W", *(self.group(name) for name in present)} | ({"B"} if bias else set())
        return [name for name in self.arrays if self.group(name) in groups]

    def holds(self, group: str) -> bool:
        """Whether there is an array for a group."""
        return any(self.group(name) == group for name in self.arrays)

    def forms(self, present: Iterable[str]) -> dict[str, Form]:
        """The shape of each array, in letters; without a projection among those present, P is H."""
        projected = any(self.group(name) == "V" for name in present if name in self.arrays)
        return {name: self._form(name, "P" if projected else "H") for name in self.arrays}

    def _form(self, name: str, output: str) -> Form:
        rows = self.rows(name)
        if rows[0][0][0] not in _SHAPES:
            wide = Counter(H=len(rows[0]))
            return (Counter({"": len(rows)}), wide) if len(rows) > 1 else (wide,)
        high = [self._shape(row[0])[0] for row in rows]
        wide_ = [self._shape(piece)[1] for piece in rows[0]]
        return tuple(Counter(output if letter == "P" else letter for letter in axis) for axis in (high, wide_))

    def _shape(self, piece: str) -> str:
        letters = _SHAPES[piece[0]]
        return letters[::-1] if self.transposed else letters

    def take_apart(self, arrays: Mapping[str, Array], sizes: Mapping[str, int]) -> Pieces:
        """The pieces of arrays, which fit; one bias for two is that of the input, and zero beside the state."""
        pieces: Pieces = {}
        for name, array in arrays.items():
            rows = self.rows(name)
            if rows[0][0][0] not in _SHAPES:
                names = [piece for row in rows for piece in row]
                for piece, value in zip(names, np.split(array.reshape(-1), len(names)), strict=True):
                    if piece[0] == "B":
                        pieces["b" + piece[1:]], pieces["d" + piece[1:]] = value, np.zeros_like(value)
                    else:
                        pieces[piece] = value
                continue
            top = 0
            for row in rows:
                high = sizes[self._shape(row[0])[0]]
                for piece, value in zip(row, np.split(array[top : top + high], len(row), 1), strict=True):
                    pieces[piece] = value.T if self.transposed else value
                top += high
        return pieces

    def lay_out(self, pieces: Pieces, owner: str, bias: bool | None = None) -> dict[str, Array]:
        """The arrays that hold these pieces. `bias`: whether there are arrays for biases; None: where needed.

        OptionError: a piece that is not zero has no place.
        """
        left = {name for name, value in pieces.items() if value.any()}
        groups = {"W"} | {name[0] for name in pieces if name[0] in "pV"}
        given = any(name[0] in _BIASES for name in pieces)
        if (given or not self.may_lack_bias) if bias is None else bias:
            groups.add("B")
        arrays = {}
        for name in self.arrays:
            if self.group(name) in groups:
                rows = [[self._piece(piece, pieces, left) for piece in row] for row in self.rows(name)]
                wide = [np.concatenate(row, -1) for row in rows]
                whole = wide[0] if len(wide) == 1 else np.stack(wide) if wide[0].ndim == 1 else np.concatenate(wide)
                arrays[name] = np.array(whole, order="C")  # a copy, never a view of the layer's weights
        if left:
            raise OptionError(f"{owner} has {', '.join(sorted(left))}, not zero, and {self.title} has no place for it")
        return arrays

    def _piece(self, name: str, pieces: Pieces, left: set[str]) -> Array:
        if name[0] in _BIASES:
            names = ["b" + name[1:], "d" + name[1:]] if name[0] == "B" else [name]
            left.difference_update(names)
            found = [pieces[n] for n in names if n in pieces]
            # Adding a zero would lose the sign of another zero.
            parts = [value for value in found if value.any()] or found[:1]
            like = next(value for key, value in pieces.items() if key[0] == "W")
            return sum(parts[1:], parts[0]) if parts else np.zeros(len(like), like.dtype)
        left.discard(name)
        value = pieces[name]
        return value.T if self.transposed and value.ndim == 2 else value


def as_array(value: Any) -> Array:
    """Any framework's array as numpy's; bfloat16, which numpy does not have, as float32, which holds it exactly.

    InputError: it is no array.
    """
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise InputError(f"got a {type(value).__name__} among the weights, expected an array ({error})") from None
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def solve(convention: Convention, arrays: Mapping[str, Array]) -> dict[str, int]:
    """The sizes H, P and I that most of the arrays agree on; none where nothing says it."""
    axes = [
        (axis, extent)
        for name, form in convention.forms(arrays).items()
        if name in arrays and arrays[name].ndim == len(form)
        for axis, extent in zip(form, arrays[name].shape, strict=True)
    ]
    sizes = {"": 1}
    for letter in "HPI":
        if votes := Counter(_votes(letter, axes, sizes)):
            sizes[letter] = votes.most_common(1)[0][0]
    return {"P": sizes["H"], **sizes} if "H" in sizes else sizes


def _votes(letter: str, axes: list[tuple[Counter[str], int]], sizes: Mapping[str, int]) -> Iterator[int]:
    """What each axis says of a size, where the others are known."""
    for axis, extent in axes:
        if letter in axis and all(other in sizes for other in axis if other != letter):
            rest = extent - sum(n * sizes[other] for other, n in axis.items() if other != letter)
            if rest > 0 and rest % axis[letter] == 0:
                yield rest // axis[letter]


def problems(
    convention: Convention, arrays: Mapping[str, Array], sizes: Mapping[str, int], bias: bool
) -> Iterator[Problem]:
    """What is missing, extra, wrongly shaped, or no finite floating numbers, for a cell with or without biases."""
    forms = convention.forms(arrays)
    for name in convention.needed((name for name in arrays if name in forms), bias):
        if name not in arrays:
            yield name, f"is missing, expected {_words(forms[name], sizes)}"
    for name, array in arrays.items():
        if name not in forms:
            yield name, f"is extra, got {list(array.shape)}"
        elif not bias and convention.group(name) == "B":
            yield name, f"is extra for bias=False, got {list(array.shape)}"
        elif list(array.shape) != _extents(forms[name], sizes):
            yield name, f"is {list(array.shape)}, expected {_words(forms[name], sizes)}"
        elif array.dtype.kind != "f":
            yield name, f"holds {array.dtype}, expected floating numbers"
        elif count := array.size - int(np.isfinite(array).sum()):
            yield name, f"holds NaN or infinite numbers ({count} of {array.size}), expected finite ones"


def _extents(form: Form, sizes: Mapping[str, int]) -> list[int] | None:
    """A shape in numbers; None where a size is not known."""
    if any(letter not in sizes for axis in form for letter in axis):
        return None
    return [sum(n * sizes[letter] for letter, n in axis.items()) for axis in form]


def _words(form: Form, sizes: Mapping[str, int]) -> str:
    """ "[I + H, 4H] = [7, 16]" """
    axes = [" + ".join(f"{n if n > 1 or not letter else ''}{letter}" for letter, n in a.items()) for a in form]
    known = _extents(form, sizes)
    return f"[{', '.join(axes)}]" + (f" = {known}" if known else "")


def refuse(title: str, found: Iterable[Problem]) -> None:
    """InputError with everything that was found, if anything was."""
    if listed := [f"{name} {what}" for name, what in found]:
        raise InputError(f"these weights are not those of {title}: {'; '.join(listed)}")
