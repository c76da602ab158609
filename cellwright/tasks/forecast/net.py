"""The net that forecasts, and its training.

h       = encoder(window)                                        N steps
g_t     = decoder(future_t, g_{t-1}),  g_0 = h                   H steps: N to M
median  = a_t naive_t + sum_n A_{t,n} window_n + V_0 g_t + c_0
upper   = the quantile below it + softplus(V_q g_t + c_q)        and downwards alike: quantiles never cross

The linear part beside the net is that of Lai et al. 2018 (LSTNet). a begins as 1, A and V as 0: a new net is the
seasonal naive forecast, and learns what is better. The loss is the quantile loss (Koenker and Bassett 1978), in errors
of the seasonal naive forecast one season back, so that series of all sizes count the same.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import softplus

from ...errors import DataError
from ...nn import Recurrent
from ...topologies import ManyToMany
from ..data.order import Order
from ..data.parts import TEST, TRAINING, VALIDATION
from ..task import Task
from .config import ForecastConfig
from .scores import ForecastScore
from .windows import Batch, Knowledge, Windows, parts

_AT_ONCE = 256  # windows of an evaluation
_LOOKED_AT = 4096  # windows of a validation at most, evenly spread


class ForecastNet(nn.Module):
    """From a window of N steps to K targets at H steps, each with Q quantiles."""

    def __init__(
        self,
        encoder: Recurrent,
        decoder: Recurrent,
        window: int,
        horizon: int,
        targets: int,
        middle: int,
        quantiles: int,
        dropout: float,
    ) -> None:
        """`middle`: which of the quantiles is the median."""
        super().__init__()
        self.shape, self.middle = (targets, quantiles), middle
        output = nn.Linear(decoder.output_size, targets * quantiles)
        nn.init.zeros_(output.weight)
        nn.init.zeros_(output.bias)
        self.encoder, self.decoder = encoder, ManyToMany(decoder, nn.Sequential(nn.Dropout(dropout), output))
        self.naive = nn.Parameter(torch.ones(horizon, 1, targets))
        self.linear = nn.Parameter(torch.zeros(horizon, window, targets))

    def forward(self, x: Tensor, future: Tensor) -> Tensor:
        """Window [N, B, I] and future [H, B, J] to quantiles [H, B, K, Q] in ascending order."""
        K, Q = self.shape
        _, state = self.encoder(x)
        raw = self.decoder(future, state)[0].unflatten(-1, (K, Q))
        linear = torch.einsum("hnk,nbk->hbk", self.linear, x[..., :K])
        middle = self.naive * future[..., :K] + linear + raw[..., self.middle]
        steps = softplus(raw)
        below = middle.unsqueeze(-1) - steps[..., : self.middle].flip(-1).cumsum(-1).flip(-1)
        above = middle.unsqueeze(-1) + steps[..., self.middle + 1 :].cumsum(-1)
        return torch.cat([below, middle.unsqueeze(-1), above], -1)


class Net:
    """A net, and what it knows of its series."""

    def __init__(self, model: ForecastNet, knows: Knowledge) -> None:
        self.model, self.knows = model, knows

    @torch.no_grad()
    def run(self, windows: Windows, origins: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], Batch, Tensor]]:
        """Origins, their windows, and what the net says, [H, B, K, Q]; some at a time, in their order."""
        self.model.eval()
        for first in range(0, len(origins), _AT_ONCE):
            chosen = origins[first : first + _AT_ONCE]
            batch = windows(chosen)
            yield chosen, batch, self.model(batch.x, batch.future)

    def score(self, windows: Windows, origins: NDArray[np.int64]) -> ForecastScore:
        """How good the forecasts of some origins are."""
        score = ForecastScore(windows.config.quantiles, windows.knows)
        for chosen, batch, said in self.run(windows, origins):
            loss = quantile_loss(said, batch, windows.config.quantiles)
            there = batch.there.numpy().swapaxes(0, 1) > 0
            units = windows.naive[windows.series(chosen)]
            score.add(windows.data(batch, said.double().numpy()), batch.true, batch.naive, there, units, float(loss))
        return score


def quantile_losses(said: Tensor, batch: Batch, quantiles: tuple[float, ...]) -> Tensor:
    """max(q d, (q - 1) d), d = truth - forecast, its mean over the quantiles, [H, B, K]; 0 where there is no truth."""
    d = batch.truth.unsqueeze(-1) - said
    q = torch.tensor(quantiles, dtype=said.dtype)
    return torch.maximum(q * d, (q - 1) * d).mean(-1) * batch.unit * batch.there


def quantile_loss(said: Tensor, batch: Batch, quantiles: tuple[float, ...]) -> Tensor:
    """The mean of `quantile_losses` over what is there."""
    return quantile_losses(said, batch, quantiles).sum() / batch.there.sum().clamp(min=1)


class ForecastTask(Task):
    """The task that the training loop sees."""

    model: ForecastNet
    unit = "value"
    quantity = "scaled quantile loss"

    def __init__(self, config: ForecastConfig, net: Net, windows: Windows) -> None:
        self.net, self.model, self.windows = net, net.model, windows
        self.better = dict.fromkeys(("loss", "MAE", "RMSE", "MASE", "pinball"), -1)
        where = parts(config, windows.frames.history)
        self.origins = {part: windows.origins(*where[part]) for part in (TRAINING, VALIDATION)}
        self.origins[TEST] = windows.origins(*where[TEST], config.stride)
        _enough(config, windows, self.origins)
        seen = self.origins[VALIDATION]
        self._looked_at = seen[np.linspace(0, len(seen) - 1, min(len(seen), _LOOKED_AT)).round().astype(np.int64)]
        training = self.origins[TRAINING]
        self.order = Order(training, np.broadcast_to(np.int64(0), training.shape), config.batch, config.seed)
        self.per_step = min(config.batch, len(training)) * windows.horizon * windows.frames.targets

    def batch(self, step: int) -> Batch:
        """Windows from anywhere in the training parts."""
        return self.windows(self.order(step))

    def criterion(self, batch: Batch, step: int) -> Tensor:
        """The quantile loss."""
        return quantile_loss(self.model(batch.x, batch.future), batch, self.windows.config.quantiles)

    def validate(self) -> dict[str, float]:
        """The loss and the errors on the validation part."""
        return self.net.score(self.windows, self._looked_at).measured

    def test(self) -> dict[str, float] | None:
        """The same on the test part, and the rest that is measured; None if there is none."""
        origins = self.origins[TEST]
        if not len(origins):
            return None
        score = self.net.score(self.windows, origins)
        return score.measured | score.standardised

    def last_losses(self, count: int) -> Tensor:
        """The loss [B] of the last step of the first forecasts for validation."""
        batch = self.windows(self.origins[VALIDATION][:count])
        said = self.model(batch.x, batch.future)
        return quantile_losses(said, batch, self.windows.config.quantiles)[-1].sum(-1)


def _enough(config: ForecastConfig, windows: Windows, origins: Mapping[int, NDArray[Any]]) -> None:
    """DataError: a part that is wanted has no window."""
    where = parts(config, windows.frames.history)
    for part, name, before in (
        (TRAINING, "training", windows.history),
        (VALIDATION, "validation", 0),
        (TEST, "test", 0),
    ):
        if len(origins[part]) or (part == TEST and not config.test):
            continue
        raise too_short(config, windows.frames.history, where[part], name, before, windows.horizon)


def too_short(
    config: ForecastConfig, steps: NDArray[Any], where: Sequence[NDArray[Any]], part: str, before: int, horizon: int
) -> DataError:
    """The error of a part, from `where[0]` to `where[1]` of series of so many steps, that has no forecast."""
    names = ", ".join(config.data) or "the data"
    needs = f"history {before} + horizon {horizon}" if before else f"horizon {horizon}"
    return DataError(
        f"{names}: the longest series has {int(steps.max(initial=0))} steps, of which "
        f"{int((where[1] - where[0]).max(initial=0))} are for the {part}, and one forecast needs {before + horizon} "
        f"({needs}); give more data, a shorter --window or --horizon, or another --validation or --test"
    )
