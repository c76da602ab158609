"""Cellwright: write a recurrent cell as its equations; train it, run it, look inside it and ship it.

The floors, each importing only from those below it:

    errors      0  the error tree
    lang        1  from equations to a plan; knows no target, imports no torch
    cells       2  mathematics only: one short file per family
    emit        2  targets: torch (the reference, the meaning of the operations), cpu (compiled), ONNX, LaTeX
    nn          3  what a PyTorch user touches: Cell, Recurrent, RNN, LSTM, GRU, wrappers, check_grads
    convert     4  weights and models of others: Keras, TF1, Flax, torch.nn, ONNX; `from cellwright import convert`
    topologies  4  what goes in and what comes out: N to 1, 1 to N, N to M with attention and search
    tasks       5  data, model and metric: the character model, labels of sequences and of steps
    train       5  the training loop, run folders
    app         6  the command line, Classifier, Tagger, Forecaster, doctor

The names below are the public surface, and those of `cellwright.topologies`. The names of `nn` are imported when
first used, so that importing the package does not wait for torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .errors import (
    CellError,
    CellwrightError,
    DataError,
    GradientError,
    InputError,
    OptionError,
    RunError,
    TargetError,
)
from .lang import ACTIVATIONS, Definition, Equations
from .lang.functions import (
    clamp,
    cos,
    elu,
    erf,
    exp,
    gelu,
    hard_sigmoid,
    hard_tanh,
    identity,
    leaky_relu,
    log,
    maximum,
    minimum,
    relu,
    selu,
    sigmoid,
    sign,
    silu,
    sin,
    softplus,
    softsign,
    sqrt,
    sum_units,
    tanh,
    where,
)

if TYPE_CHECKING:
    from .app.estimators import Classifier, Forecaster, Tagger
    from .nn import (
        GRU,
        LSTM,
        RNN,
        Attentive,
        Cell,
        EmbeddingDropout,
        LockedDropout,
        Recurrent,
        RecurrentDropout,
        Trace,
        WeightDrop,
        Zoneout,
        activation_regularisation,
        available_targets,
        check_grads,
        chrono_initialise,
        current_target,
        gradient_norms,
        temporal_activation_regularisation,
        use_target,
    )
    from .nn.built_in import (
        GreffLSTMCell,
        GRUCell,
        IndRNNCell,
        JANETCell,
        JordanCell,
        LiGRUCell,
        LSTMCell,
        MGUCell,
        MinGRUCell,
        MinLSTMCell,
        MogrifierLSTMCell,
        MultiplicativeLSTMCell,
        QRNNCell,
        RHNCell,
        RNNCell,
        SLSTMCell,
        SRUCell,
        UGRNNCell,
    )

__version__ = "0.1.0"

__all__ = [
    "ACTIVATIONS",
    "GRU",
    "LSTM",
    "RNN",
    "Attentive",
    "Cell",
    "CellError",
    "CellwrightError",
    "Classifier",
    "DataError",
    "Definition",
    "EmbeddingDropout",
    "Equations",
    "Forecaster",
    "GRUCell",
    "GradientError",
    "GreffLSTMCell",
    "IndRNNCell",
    "InputError",
    "JANETCell",
    "JordanCell",
    "LSTMCell",
    "LiGRUCell",
    "LockedDropout",
    "MGUCell",
    "MinGRUCell",
    "MinLSTMCell",
    "MogrifierLSTMCell",
    "MultiplicativeLSTMCell",
    "OptionError",
    "QRNNCell",
    "RHNCell",
    "RNNCell",
    "Recurrent",
    "RecurrentDropout",
    "RunError",
    "SLSTMCell",
    "SRUCell",
    "Tagger",
    "TargetError",
    "Trace",
    "UGRNNCell",
    "WeightDrop",
    "Zoneout",
    "activation_regularisation",
    "available_targets",
    "check_grads",
    "chrono_initialise",
    "clamp",
    "cos",
    "current_target",
    "elu",
    "erf",
    "exp",
    "gelu",
    "gradient_norms",
    "hard_sigmoid",
    "hard_tanh",
    "identity",
    "leaky_relu",
    "log",
    "maximum",
    "minimum",
    "relu",
    "selu",
    "sigmoid",
    "sign",
    "silu",
    "sin",
    "softplus",
    "softsign",
    "sqrt",
    "sum_units",
    "tanh",
    "temporal_activation_regularisation",
    "use_target",
    "where",
]


def __getattr__(name: str) -> Any:
    if name in ("Classifier", "Forecaster", "Tagger"):
        return getattr(importlib.import_module(".app.estimators", __name__), name)
    if name in __all__:
        nn = importlib.import_module(".nn", __name__)
        return nn.CELLS[name] if name in nn.CELLS else getattr(nn, name)
    raise AttributeError(f"module 'cellwright' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *globals()})
