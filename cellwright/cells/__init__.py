"""The cells, one short file of mathematics per family; `find` gives a cell by its name or from a user's file."""

import hashlib
import importlib.util
import re
import sys
from pathlib import Path

from ..errors import CellwrightError, OptionError
from ..lang import Equations
from .elman import Elman
from .greff import GreffLSTM
from .gru import GRU
from .indrnn import IndRNN
from .janet import JANET
from .jordan import Jordan
from .ligru import LiGRU
from .lstm import LSTM
from .mgu import MGU
from .mingru import MinGRU
from .minlstm import MinLSTM
from .mogrifier import MogrifierLSTM
from .multiplicative import MultiplicativeLSTM
from .qrnn import QRNN
from .rhn import RHN
from .slstm import SLSTM
from .sru import SRU
from .ugrnn import UGRNN

CELLS: tuple[type[Equations], ...] = (
    Elman,
    Jordan,
    LSTM,
    GreffLSTM,
    MultiplicativeLSTM,
    MogrifierLSTM,
    SLSTM,
    GRU,
    MGU,
    UGRNN,
    LiGRU,
    JANET,
    RHN,
    IndRNN,
    SRU,
    QRNN,
    MinGRU,
    MinLSTM,
)
# By the names of the classes in small letters; Elman's is the name that torch.nn gives it.
BY_NAME = {"rnn" if kind is Elman else kind.__name__.lower(): kind for kind in CELLS}

__all__ = [
    "BY_NAME",
    "CELLS",
    "GRU",
    "JANET",
    "LSTM",
    "MGU",
    "QRNN",
    "RHN",
    "SLSTM",
    "SRU",
    "UGRNN",
    "Elman",
    "GreffLSTM",
    "IndRNN",
    "Jordan",
    "LiGRU",
    "MinGRU",
    "MinLSTM",
    "MogrifierLSTM",
    "MultiplicativeLSTM",
    "find",
]


def find(spec: str) -> type[Equations]:
    """The class of a cell: a name such as `lstm` (`BY_NAME`), or `path/to/file.py:MyCell`, which runs that file.

    Without `:MyCell`, the file's only cell is taken. OptionError when there is no such cell.
    """
    if spec.lower() in BY_NAME:
        return BY_NAME[spec.lower()]
    parts = re.fullmatch(r"(.+\.py)(?::(\w+))?", spec)
    if not parts:
        raise OptionError(f"got the cell {spec!r}, expected {', '.join(BY_NAME)} or path/to/file.py:MyCell")
    file, name = Path(parts[1]).expanduser(), parts[2]
    if not file.is_file():
        raise OptionError(f"got the cell {spec!r}, but there is no file {file}")
    found = {
        k: v
        for k, v in _load(file).items()
        if isinstance(v, type) and issubclass(v, Equations) and v.__module__ == _module_name(file)
    }
    wanted = name or (next(iter(found)) if len(found) == 1 else "")
    if wanted not in found:
        listed = ", ".join(found) or "no class derived from cellwright.Cell"
        raise OptionError(f"got the cell {spec!r}; {file} has {listed}; write {file}:NAME with one of its cells")
    return found[wanted]


def _module_name(file: Path) -> str:
    return f"cellwright_cell_{file.stem}_{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:8]}"


def _load(file: Path) -> dict[str, object]:
    """Run a user's file; whatever it raises becomes one clear sentence."""
    name = _module_name(file)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except CellwrightError:
        raise
    except (Exception, SystemExit) as error:
        line = _line_in(file, error)
        raise OptionError(f"{file}{line} could not be run: {type(error).__name__}: {error}") from error
    return vars(module)


def _line_in(file: Path, error: BaseException) -> str:
    """ ", line N" of the user's file that the error came from."""
    line, trace = getattr(error, "lineno", None), error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(file):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f", line {line}" if line else ""
