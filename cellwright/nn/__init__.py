"""What a PyTorch user touches: cells with weights, layers over sequences, the choice of a target, `check_grads`."""

from .built_in import CELLS, GRUCell, LSTMCell, RNNCell
from .cell import Cell
from .check import check_grads
from .generation import stepper
from .layers import GRU, LSTM, RNN
from .recurrent import Recurrent
from .scan import available_targets, cache_report, current_target, use_target

__all__ = [
    "CELLS",
    "GRU",
    "LSTM",
    "RNN",
    "Cell",
    "GRUCell",
    "LSTMCell",
    "RNNCell",
    "Recurrent",
    "available_targets",
    "cache_report",
    "check_grads",
    "current_target",
    "stepper",
    "use_target",
]
