"""What a PyTorch user touches: cells with weights, layers over sequences, the choice of a target, `check_grads`."""

from .cell import Cell, GRUCell, LSTMCell, RNNCell
from .check import check_grads
from .generation import stepper
from .layers import GRU, LSTM, RNN
from .recurrent import Recurrent
from .scan import available_targets, bfloat16_report, cache_report, current_target, use_target

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Cell",
    "GRUCell",
    "LSTMCell",
    "RNNCell",
    "Recurrent",
    "available_targets",
    "bfloat16_report",
    "cache_report",
    "check_grads",
    "current_target",
    "stepper",
    "use_target",
]
