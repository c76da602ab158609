"""`RNN`, `LSTM` and `GRU`: layers of the classic cells, with the constructors of torch.nn."""

from typing import Any, Literal

import torch

from .. import cells
from .recurrent import Recurrent
from .wrappers import LockedDropout


class RNN(Recurrent):
    """Elman layers with the constructor of torch.nn.RNN; see `Recurrent` for calls, `cells.Elman` for the equations.

    Args:
        nonlinearity: any name in `cellwright.ACTIVATIONS`; the other arguments are those of `Recurrent`.
        options: `merge`, `recurrent_dropout` and the other wrappers of `Recurrent`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool | Literal["input"] = True,
        batch_first: bool = False,
        dropout: float | LockedDropout = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            cells.Elman,
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            device=device,
            dtype=dtype,
            activation=nonlinearity,
            **options,
        )
        self.nonlinearity = nonlinearity


class LSTM(Recurrent):
    """LSTM layers with the constructor of torch.nn.LSTM; see `Recurrent` for calls, `cells.LSTM` for the equations.

    Args:
        proj_size: P > 0: the output is a projection to P units.
        options: peephole, coupled, forget_bias, and the wrappers of `Recurrent`, which has the other arguments.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool | Literal["input"] = True,
        batch_first: bool = False,
        dropout: float | LockedDropout = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            cells.LSTM,
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            device=device,
            dtype=dtype,
            proj_size=proj_size,
            **options,
        )
        self.proj_size = proj_size


class GRU(Recurrent):
    """GRU layers with the constructor of torch.nn.GRU; see `Recurrent` for calls, `cells.GRU` for the equations.

    Args:
        options: reset_after, and the wrappers of `Recurrent`, which has the other arguments.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool | Literal["input"] = True,
        batch_first: bool = False,
        dropout: float | LockedDropout = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            cells.GRU,
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            device=device,
            dtype=dtype,
            **options,
        )
