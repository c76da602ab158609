"""What a PyTorch user touches: cells with weights, layers over sequences, the choice of a target, `check_grads`."""

from .attentive import Attentive
from .built_in import CELLS, GRUCell, LSTMCell, RNNCell
from .cell import Cell
from .check import check_grads
from .chrono import chrono_initialise
from .generation import stepper
from .gradients import gradient_norms
from .layers import GRU, LSTM, RNN
from .recurrent import Recurrent, Trace
from .scan import available_targets, bfloat16_report, cache_report, current_target, use_target
from .wrappers import (
    EmbeddingDropout,
    LockedDropout,
    RecurrentDropout,
    WeightDrop,
    Zoneout,
    activation_regularisation,
    temporal_activation_regularisation,
)

__all__ = [
    "CELLS",
    "GRU",
    "LSTM",
    "RNN",
    "Attentive",
    "Cell",
    "EmbeddingDropout",
    "GRUCell",
    "LSTMCell",
    "LockedDropout",
    "RNNCell",
    "Recurrent",
    "RecurrentDropout",
    "Trace",
    "WeightDrop",
    "Zoneout",
    "activation_regularisation",
    "available_targets",
    "bfloat16_report",
    "cache_report",
    "check_grads",
    "chrono_initialise",
    "current_target",
    "gradient_norms",
    "stepper",
    "temporal_activation_regularisation",
    "use_target",
]
