"""Which arrays of a file or tree belong to which layer and direction: read from their names, "rnn/cell_0/kernel"."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ...errors import InputError, OptionError
from .blocks import Array, Convention, as_array, refuse
from .layers import Found

Layers = Sequence[str | tuple[str, str]]
_FORWARD = re.compile(r"fw|forward(_\w+)?")
_BACKWARD = re.compile(r"bw|backward(_\w+)?|reverse")
_NUMBER = re.compile(r"_?(\d+)$")
# Flax numbers cells in the order in which a module makes them: two of them are two layers or two directions.
_UNCLEAR = re.compile(r"\w*Cell_\d+")


def gather(
    arrays: Mapping[str, Any],
    conventions: Sequence[Convention],
    options: Mapping[str, Any],
    layers: Layers | None,
    spell: Callable[[str], str] = str,
) -> Found:
    """The arrays of each layer and direction, by the convention whose names they have.

    `layers`: the names below which the arrays of each layer are, in order, a pair (forward, backward) for two
    directions; None: told by numbers and words such as `cell_1`, `fw`, `backward_lstm`. `spell`: a name as the
    framework writes it, for errors.

    InputError: names that no convention knows, or whose order is not clear. OptionError: `layers` are not there.
    """
    if not arrays:
        raise InputError(f"got no arrays at all, expected those of {conventions[0].title}")
    if wrong := [name for name in arrays if not isinstance(name, str)]:
        raise InputError(f"got the names {wrong!r}, expected texts such as 'rnn/lstm_cell/kernel'")
    flat = {name.removesuffix(":0").strip("/"): value for name, value in arrays.items()}
    # What is named below another array is the optimizer's: kernel/Adam.
    flat = {name: value for name, value in flat.items() if not any(above in flat for above in _above(name))}
    chosen = None if layers is None else [(e,) if isinstance(e, str) else tuple(e) for e in layers]
    if chosen is not None:
        flat = {n: v for n, v in flat.items() if any(_below(n, name) for entry in chosen for name in entry)}
        if lost := [name for entry in chosen for name in entry if not any(_below(n, name) for n in flat)]:
            known = ", ".join(sorted({"/".join(n.split("/")[:-1]) for n in arrays if "/" in n})[:20]) or "no such names"
            raise OptionError(f"got layers={lost!r}, below which there is no array; there are {known}")
    convention = max(conventions, key=lambda c: _score(flat, c))
    cells: dict[str, dict[str, Array]] = {}
    extra = []
    for name, value in flat.items():
        parts = _split(name, convention)
        if parts is None:
            extra.append((spell(name), f"is extra, got {list(as_array(value).shape)}"))
        else:
            cells.setdefault(parts[0], {})[parts[1]] = as_array(value)
    if extra and not cells:
        refuse(convention.title, extra)
    groups = _listed(chosen, cells) if chosen is not None else _ordered(list(cells))
    found = [[(f"{prefix}/" if prefix else "", cells[prefix]) for prefix in group] for group in groups]
    return Found(convention, found, options, extra, spell)


def _score(names: Iterable[str], convention: Convention) -> tuple[int, int]:
    """How well names fit: the more of them, and in the fewer cells, the better ("projection" is no cell)."""
    parts = [_split(name, convention) for name in names]
    found = [part for part in parts if part is not None]
    return len(found), -len({prefix for prefix, _ in found})


def _split(name: str, convention: Convention) -> tuple[str, str] | None:
    """The prefix and the array of a name: "rnn/cell/gates/kernel" is ("rnn/cell", "gates/kernel")."""
    for array in sorted(convention.arrays, key=len, reverse=True):
        if name == array:
            return "", array
        if name.endswith(f"/{array}"):
            return name.removesuffix(f"/{array}"), array
    return None


def _above(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:k]) for k in range(1, len(parts))]


def _below(name: str, prefix: str) -> bool:
    prefix = prefix.strip("/")
    return not prefix or name == prefix or name.startswith(f"{prefix}/")


def _listed(chosen: Sequence[tuple[str, ...]], cells: Mapping[str, Any]) -> list[list[str]]:
    """The cells of each named layer."""
    groups: list[list[str]] = []
    if not chosen:
        raise OptionError("got layers=[], expected the names of the layers, or None for all")
    for entry in chosen:
        below = [[prefix for prefix in cells if _below(prefix, name)] for name in entry]
        if len(entry) == 1:
            groups += _ordered(below[0])
        elif len(entry) == 2 and all(len(prefixes) == 1 for prefixes in below) and below[0] != below[1]:
            groups.append([prefixes[0] for prefixes in below])
        else:
            raise OptionError(f"got the layer {entry!r}, expected the name of a layer, or (forward, backward) names")
    if len({len(group) for group in groups}) > 1:
        raise InputError(f"got layers of one and of two directions: {_shown(groups)}; convert them one by one")
    return groups


def _ordered(prefixes: list[str]) -> list[list[str]]:
    """Layers in the order of the numbers in their names, each with its directions."""
    places: dict[tuple[str, ...], dict[bool, str]] = {}
    marked: dict[tuple[str, ...], bool] = {}
    for prefix in prefixes:
        parts = prefix.split("/")
        backward = any(_BACKWARD.fullmatch(part) for part in parts)
        place = tuple(part for part in parts if not (_FORWARD.fullmatch(part) or _BACKWARD.fullmatch(part)))
        marked[place] = marked.get(place, False) or len(place) < len(parts)
        directions = places.setdefault(place, {})
        if backward in directions:
            raise _unclear(prefixes)
        directions[backward] = prefix
    kinds = {tuple(_NUMBER.sub("", part) for part in place) for place in places}
    if len(kinds) > 1 or (len(places) > 1 and any(_UNCLEAR.fullmatch(part) for place in places for part in place)):
        raise _unclear(prefixes)
    groups = []
    for place in sorted(places, key=lambda place: [_number(part) for part in place]):
        if marked[place] and len(places[place]) < 2:
            (only,) = places[place].values()
            raise InputError(f"got only one direction of a bidirectional layer, {only}; the other one is missing")
        groups.append([places[place][k] for k in sorted(places[place])])
    return groups


def _unclear(prefixes: list[str]) -> InputError:
    return InputError(
        f"got cells named {', '.join(sorted(prefixes))}, which does not tell their order; "
        "say it: layers=['first', 'second'], or layers=[('forward', 'backward')]"
    )


def _number(part: str) -> int:
    found = _NUMBER.search(part)
    return int(found[1]) if found else 0


def _shown(groups: list[list[str]]) -> str:
    return ", ".join(" + ".join(group) for group in groups)
