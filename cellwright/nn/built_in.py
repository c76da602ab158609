"""The cells of `cellwright.cells`, each as a class that owns its weights: `LSTMCell` of `cells.LSTM`, and so on."""

from .. import cells
from ..lang import Equations
from .cell import Cell


def with_weights(equations: type[Equations], name: str) -> type[Cell]:
    """Equations as a class that owns its weights."""
    return type(name, (equations, Cell), {"__doc__": equations.__doc__, "__module__": __name__})


def _name(kind: type[Equations]) -> str:
    return "RNNCell" if kind is cells.Elman else f"{kind.__name__}Cell"  # as torch.nn names it


CELLS = {_name(kind): with_weights(kind, _name(kind)) for kind in cells.CELLS}


def __getattr__(name: str) -> type[Cell]:
    """A class of `CELLS` as an attribute of this module: where imports and pickle look for it."""
    if name in CELLS:
        return CELLS[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
