"""Mogrifier LSTM (Melis et al. 2020): input and state change each other before they enter an LSTM."""

from typing import Any

from ..errors import OptionError
from ..lang.functions import sigmoid
from .lstm import LSTM


class MogrifierLSTM(LSTM):
    """x <- 2 sigmoid(Q_k h) x for k = 1, 3, ...,  h <- 2 sigmoid(Q_k x) h for k = 2, 4, ...,  then LSTM(x, h, c)

    For: language models on little data. It costs `rounds` more products per step, one after the other, and x can no
    longer be multiplied for all steps at once.

    Shapes: those of `LSTM`; weight_q1, weight_q3, ... [I, H], weight_q2, weight_q4, ... [H, I], without biases.

    Options:
        rounds: how often one is changed by the other; the paper's best are 5 or 6. 0 is an LSTM.
        the others: those of `LSTM`.

    Source: G. Melis, T. Kocisky & P. Blunsom, "Mogrifier LSTM", ICLR 2020. Even Q_k are the paper's R; they have full
    rank here, the paper also factors them.
    """

    rounds = 5

    def step(self, x: Any, h: Any, c: Any) -> Any:
        """One step: the next hidden state and cell state."""
        for k in range(1, self.rounds + 1):
            if k % 2:
                x = 2 * sigmoid(self.linear("x", h, matrix=f"q{k}", size="input_size", bias=False)) * x
            else:
                h = 2 * sigmoid(self.linear("h", x, matrix=f"q{k}", size=self.states["h"], bias=False)) * h
        return super().step(x, h, c)

    def check(self) -> None:
        """The rounds, and what an LSTM checks."""
        super().check()
        if self.rounds < 0:
            raise OptionError(f"got rounds={self.rounds}, expected 0 or more")
