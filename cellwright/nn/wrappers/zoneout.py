"""Units that keep their value of the step before (Krueger et al. 2017)."""

from typing import Any

from torch import Tensor

from ...errors import OptionError
from ...lang import Definition, with_expected_zoneout, with_zoneout
from .rates import check_names, draw, rate_of


class Zoneout:
    """In training, each unit of a state stays at each step as it was, with a probability of its own state.

    In evaluation, the next state is what that gives on average: rate * old + (1 - rate) * new (Krueger et al. 2017).

        Zoneout(0.1)               every state but auxiliary ones
        Zoneout(h=0.05, c=0.5)     these states; the paper's choice for an LSTM on text

    OptionError: no rate, or one outside of [0, 1); a state that the cell does not have.
    """

    def __init__(self, rate: Any = None, /, **rates: Any) -> None:
        if (rate is None) == (not rates):
            raise OptionError("got a Zoneout with no rate or with two kinds, expected Zoneout(0.1) or Zoneout(h=0.1)")
        self._all = None if rate is None else rate_of("rate", rate)
        self._rates = {state: rate_of(state, value) for state, value in rates.items()}

    def rates(self, definition: Definition) -> dict[str, float]:
        """The rates by state that are not zero."""
        check_names("zoneout", self._rates, definition.states, definition)
        rates = self._rates if self._all is None else dict.fromkeys(definition.plain, self._all)
        return {state: rate for state, rate in rates.items() if rate}

    def rewrite(self, definition: Definition, training: bool) -> Definition:
        """The equations with it."""
        rates = self.rates(definition)
        return with_zoneout(definition, tuple(rates)) if training else with_expected_zoneout(definition, rates)

    def masks(self, definition: Definition, T: int, B: int, like: Tensor, reset: Tensor | None) -> dict[str, Tensor]:
        """The masks of one call by the names of the inputs, [T, B, units]: 1 where a unit stays."""
        rates = self.rates(definition).items()
        return {f"stay_{name}": draw(rate, (T, B, definition.state_size(name)), like) for name, rate in rates}

    def __repr__(self) -> str:
        inner = [str(self._all)] if self._all is not None else [f"{k}={v}" for k, v in self._rates.items()]
        return f"Zoneout({', '.join(inner)})"
