"""Labels that are numbers or truth values: a run keeps texts, and gives them back as what they were."""

import math
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

_READ: dict[str, Callable[[str], Any]] = {"bool": "True".__eq__, "int": int, "float": float}
_MADE: dict[str, Callable[[Any], Any]] = {"bool": bool, "int": int, "float": float}


def kind_of(labels: Iterable[Any]) -> str:
    """What all of them are: "bool", "int", "float" (also with some of int), or "" for texts and mixtures."""
    kinds = {_kind(label) for label in labels}
    return "float" if kinds == {"int", "float"} else kinds.pop() if len(kinds) == 1 else ""


def spelled(label: Any, kind: str) -> str:
    """A label as a text: equal numbers have the same one, whatever their types."""
    if kind and _kind(label) and abs(label) != math.inf:
        value = _MADE[kind](label)
        return str(value if value == label else label)
    return str(label)


def value(text: str, kind: str) -> Any:
    """What `spelled` was given."""
    return _READ[kind](text) if kind else text


def values(texts: Iterable[str], kind: str) -> NDArray[Any]:
    """All of them."""
    return np.array([value(text, kind) for text in texts])


def _kind(label: Any) -> str:
    if isinstance(label, (bool, np.bool_)):
        return "bool"
    return "int" if isinstance(label, Integral) else "float" if isinstance(label, Real) else ""
