"""Layers of this package as pieces of gates, and made from them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from ... import cells
from ...errors import InputError, OptionError
from ...lang import Definition, Equations
from ...nn import GRU, LSTM, RNN, Cell, Recurrent
from ...nn.weights import weights_of
from .blocks import Array, Convention, Pieces, Problem, as_array, problems, refuse, solve

Bias = bool | Literal["input"]
KINDS: dict[str, tuple[type[Equations], Callable[..., Recurrent]]] = {
    "rnn": (cells.Elman, RNN),
    "lstm": (cells.LSTM, LSTM),
    "gru": (cells.GRU, GRU),
}
_FREE = ("activation", "forget_bias")
_LETTERS = {"weight_ih": "W", "weight_hh": "R", "bias_ih": "b", "bias_hh": "d"}


@dataclass(frozen=True)
class Found:
    """The arrays of a net: by layer and direction, a prefix for their names in errors, and arrays by name.

    `options`: what is known of the cell beside them. `extra`: arrays of no layer. `spell`: a name as the
    framework writes it.
    """

    convention: Convention
    layers: Sequence[Sequence[tuple[str, Mapping[str, Array]]]]
    options: Mapping[str, Any]
    extra: Sequence[Problem] = ()
    spell: Callable[[str], str] = str


def home(definition: Definition) -> Convention:
    """The convention of this package (and of torch.nn) for a cell: read from its weights."""
    arrays = {}
    for name, param in definition.params.items():
        between = " " if param.source is None else "; "
        letter = _LETTERS.get(name)
        arrays[name] = between.join(f"{letter}_{gate}" for gate in param.slices) if letter else name
    if "weight_hr" in arrays:
        arrays["weight_hr"] = "V"
    return Convention("Cellwright", (definition.name,), definition.name, arrays, transposed=False, may_lack_bias=True)


def check_layer(layer: Any, merges: Sequence[str] = ("concat",)) -> Recurrent | Cell:
    """OptionError: it is no layer of this package, or does more than its cells and, in one of some ways, both
    directions together."""
    if not isinstance(layer, (Recurrent, Cell)):
        raise OptionError(f"got a {type(layer).__name__}, expected a layer or cell such as cellwright.LSTM(10, 20)")
    if isinstance(layer, Recurrent):
        plain: dict[str, Sequence[Any]] = {"residual": (False,), "merge": merges}
        found = {name: getattr(layer, name) for name in plain}
        if more := " and ".join(f"{name}={value!r}" for name, value in found.items() if value not in plain[name]):
            raise OptionError(f"got a layer with {more}, which is not converted; do that around the layer")
    return layer


def pieces_of(layer: Recurrent | Cell) -> Iterator[tuple[int, int, Definition, Pieces]]:
    """Layer by layer and direction by direction: their numbers, the equations, the pieces."""
    if isinstance(layer, Cell):
        definitions, suffixes = [layer.definition()], [[""]]
    else:
        definitions = layer.equations(training=False)  # with the zoneout of evaluation, which other cells do not have
        ends = ("", "_reverse")[: layer.directions]
        suffixes = [[f"_l{k}{end}" for end in ends] for k in range(layer.num_layers)]
    for k, definition in enumerate(definitions):
        sizes = sizes_of(definition)
        for direction, suffix in enumerate(suffixes[k]):
            arrays = {name: as_array(t) for name, t in weights_of(layer, definition, suffix).items()}
            yield k, direction, definition, home(definition).take_apart(arrays, sizes)


def sizes_of(definition: Definition) -> dict[str, int]:
    """The letters H, P and I of a cell."""
    return {
        "H": definition.sizes["hidden_size"],
        "P": definition.output_size,
        "I": definition.input_size,
    }


def choose(definition: Definition, conventions: Sequence[Convention]) -> Convention:
    """The convention for a cell. OptionError: the framework has no such cell; the reasons are named."""
    framework = conventions[0].framework if len(conventions) > 1 else conventions[0].title
    kind = kind_of(definition)
    if kind is None:
        raise OptionError(
            f"got a layer of {definition.name}, whose equations {framework} does not have; "
            "expected those of RNN, LSTM or GRU as they are in cellwright.cells"
        )
    usual = KINDS[kind][0].defaults()
    reasons = []
    for convention in (c for c in conventions if c.kind == kind):
        free = {"forget_bias"}  # it is in the weights
        free |= {"activation"} if kind == "rnn" else set()  # theirs takes any
        free |= {"peephole"} if convention.holds("p") else set()
        free |= {"proj_size"} if convention.holds("V") else set()
        wanted = usual | dict(convention.options)
        wrong = [f"{k}={v!r}" for k, v in definition.options.items() if k not in free and v != wanted[k]]
        if not wrong:
            return convention
        reasons.append(f"{convention.title} has no {' and no '.join(wrong)}")
    raise OptionError(f"{framework} cannot hold this layer: {'; '.join(reasons) or f'it is a {kind}'}")


def select(conventions: Sequence[Convention], cell: str | None, options: Mapping[str, Any]) -> list[Convention]:
    """The conventions for a cell by our name or the framework's, with these options. OptionError: there is none."""
    found = [c for c in conventions if cell is not None and cell in (c.kind, *c.cells)]
    if not found:
        known = ", ".join(dict.fromkeys(name for c in conventions for name in (c.kind, *c.cells)))
        got = "no cell" if cell is None else f"cell={cell!r}"
        raise OptionError(f"got {got} for weights of {conventions[0].framework}, expected one of {known}")
    KINDS[found[0].kind][0].check_options(dict(options))
    fits = [c for c in found if all(options.get(name, value) == value for name, value in c.options.items())]
    if not fits:
        fixed = ", ".join(f"{name}={value!r}" for name, value in found[0].options.items())
        raise OptionError(f"got options {dict(options)!r}, but {found[0].title} has {fixed}")
    return fits


def kind_of(definition: Definition) -> str | None:
    """rnn, lstm or gru: the cell of this package with the same equations, whatever its name; None: another cell."""
    bias: Any = "bias_ih" in definition.params and (True if "bias_hh" in definition.params else "input")
    sizes = definition.input_size, definition.sizes["hidden_size"]
    for kind, (equations, _) in KINDS.items():
        try:
            twin = equations(*sizes, bias=bias, **definition.options).definition()
        except OptionError:
            continue
        if twin.same_equations(definition):
            return kind
    return None


def assemble(
    found: Found, *, bias: Bias = True, batch_first: bool = True, forget_bias: float = 0.0, merge: str = "concat"
) -> Recurrent:
    """A layer from the arrays of another framework.

    `forget_bias` is added to the bias of the forget gate; `merge` is of both directions. InputError names every
    missing, extra and wrongly shaped array. OptionError: options that the kind of cell does not have.
    """
    convention = found.convention
    if bias not in (True, False, "input"):
        raise OptionError(f"got bias={bias!r}, expected True (two, as torch.nn has), 'input' (one) or False")
    if not isinstance(batch_first, bool):
        raise OptionError(f"got batch_first={batch_first!r}, expected True or False")
    if not bias and not convention.may_lack_bias:
        raise OptionError(f"got bias=False, but {convention.title} always has biases; expected True or 'input'")
    sizes = [[solve(convention, arrays) for _, arrays in layer] for layer in found.layers]
    refuse(
        convention.title, [*((found.spell(n), what) for n, what in _problems(found, sizes, bool(bias))), *found.extra]
    )
    _check_chain(found, [layer[0] for layer in sizes], merge)
    layers = [
        [convention.take_apart(arrays, own) for (_, arrays), own in zip(layer, both, strict=True)]
        for layer, both in zip(found.layers, sizes, strict=True)
    ]
    cells_: list[LayerForm] = []
    for directions, (own, *_) in zip(layers, sizes, strict=True):
        for pieces in directions:
            if forget_bias and "b_f" in pieces:
                pieces["b_f"] = (pieces["b_f"] + forget_bias).astype(pieces["b_f"].dtype)
            _one_bias(pieces, bias)
        cells_.append(LayerForm(own["I"], own["H"], bias, _options(found, directions[0], own)))
    dtype = np.result_type(*(value for layer in layers for pieces in layer for value in pieces.values()))
    result = empty_layer(
        convention.kind, cells_, len(layers[0]) == 2, batch_first, torch.from_numpy(np.zeros(0, dtype)).dtype, merge
    )
    for k, layer in enumerate(layers):
        for suffix, pieces in zip(("", "_reverse"), layer, strict=False):
            fill(result, result.definitions[k], pieces, f"_l{k}{suffix}")
    return result


@torch.no_grad()
def fill(layer: Recurrent, definition: Definition, pieces: Pieces, suffix: str) -> None:
    """Copy the pieces of one cell into its weights."""
    arrays = home(definition).lay_out(pieces, "the layer")
    for name, weight in weights_of(layer, definition, suffix).items():
        weight.copy_(torch.from_numpy(arrays[name]))


@dataclass(frozen=True)
class LayerForm:
    """What a layer to be made is like."""

    inputs: int
    hidden: int
    bias: Bias
    options: dict[str, Any]


def _check_chain(found: Found, sizes: Sequence[Mapping[str, int]], merge: str) -> None:
    """Each layer takes what the one before gives."""
    for k in range(1, len(sizes)):
        gives = sizes[k - 1]["P"] * (len(found.layers[k]) if merge in ("concat", "none") else 1)
        if sizes[k]["I"] != gives:
            before, here = (found.layers[n][0][0].rstrip("/") or f"layer {n}" for n in (k - 1, k))
            raise InputError(
                f"got {here} with {sizes[k]['I']} inputs, expected {gives}, the outputs of {before}; "
                "are these layers one after the other, in this order?"
            )


def _problems(found: Found, sizes: list[list[dict[str, int]]], bias: bool) -> Iterator[Problem]:
    """Everything that is wrong with the arrays of all layers."""
    for layer, both in zip(found.layers, sizes, strict=True):
        for (prefix, arrays), own in zip(layer, both, strict=True):
            for name, what in problems(found.convention, arrays, own, bias):
                yield f"{prefix}{name}", what
        if len(layer) == 2:
            (first, forward), (second, backward) = layer
            for name in (n for n in found.convention.arrays if (n in forward) != (n in backward)):
                yield f"{second if name in forward else first}{name}", "is missing, and the other direction has it"
            if both[0] != both[1]:
                shown = [", ".join(f"{letter} = {own[letter]}" for letter in "IHP" if letter in own) for own in both]
                yield second.rstrip("/") or "the second direction", f"has {shown[1]}, and the first has {shown[0]}"


def _one_bias(pieces: Pieces, bias: Bias) -> None:
    """With `bias="input"`, the bias beside the state goes; OptionError: it is not zero."""
    if bias == "input":
        beside = [name for name in pieces if name[0] == "d"]
        if kept := [name for name in beside if pieces[name].any()]:
            raise OptionError(
                f"got bias='input', but these weights have a bias beside the state ({', '.join(kept)}), "
                "which cannot go elsewhere; expected bias=True"
            )
        for name in beside:
            del pieces[name]


def _options(found: Found, pieces: Pieces, sizes: Mapping[str, int]) -> dict[str, Any]:
    """The options of a cell: those that the arrays and the convention tell, and what the caller says."""
    told = dict(found.convention.options)
    told |= {"peephole": True} if "p_i" in pieces else {}
    told |= {"proj_size": sizes["P"]} if "V" in pieces else {}
    # Arrays do not tell the activation of an RNN; a forget bias is only what new weights begin with.
    usual = {name: v for name, v in KINDS[found.convention.kind][0].defaults().items() if name not in _FREE} | told
    for name, value in found.options.items():
        if name in usual and usual[name] != value:
            raise OptionError(f"got {name}={value!r}, but the arrays are those of {name}={usual[name]!r}")
    return {**found.options, **told}


def empty_layer(
    kind: str, layers: Sequence[LayerForm], two: bool, batch_first: bool, dtype: torch.dtype, merge: str = "concat"
) -> Recurrent:
    """A layer without values: RNN, LSTM or GRU where its layers are alike, else a Recurrent of cells."""
    equations, public = KINDS[kind]
    more: dict[str, Any] = {
        "batch_first": batch_first,
        "bidirectional": two,
        "merge": merge,
        "device": "meta",  # no random values are drawn
        "dtype": dtype,
    }
    first = layers[0]
    if all((one.hidden, one.bias, one.options) == (first.hidden, first.bias, first.options) for one in layers):
        options = {"nonlinearity" if name == "activation" else name: v for name, v in first.options.items()}
        layer: Recurrent = public(
            first.inputs, first.hidden, num_layers=len(layers), bias=first.bias, **options, **more
        )
    else:
        cells_ = [equations(one.inputs, one.hidden, bias=one.bias, **one.options).definition() for one in layers]
        layer = Recurrent(cells_, **more)
    return layer.to_empty(device="cpu")
