"""How good forecasts are: errors of the median, the quantile loss, and how much is within the interval."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .windows import Knowledge


class ForecastScore:
    """Sums over forecasts, which come some at a time.

    MAE, RMSE     of the median, in the units of the data
    MASE          its absolute errors divided by the mean |y_t - y_{t-m}| of the training (Hyndman and Koehler 2006)
    naive MASE    the same of the seasonal naive forecast: what there is to beat
    pinball       the quantile loss, mean over the quantiles, in the units of the data
    coverage      the share of values between the lowest and the highest quantile
    """

    def __init__(self, quantiles: tuple[float, ...], knows: Knowledge) -> None:
        K, Q = len(knows.layout.targets), len(quantiles)
        self._knows, self._quantiles = knows, np.array(quantiles)
        self._middle = quantiles.index(0.5)
        self.count = np.zeros(K)
        self.sums = {name: np.zeros(K) for name in ("absolute", "square", "scaled", "naive", "naive scaled", "inside")}
        self.pinball = np.zeros((K, Q))
        self.below = np.zeros((K, Q))  # how many values are at a quantile or below it
        self._loss = 0.0

    def add(
        self,
        forecast: NDArray[np.float64],
        true: NDArray[np.float64],
        naive: NDArray[np.float64],
        there: NDArray[np.bool_],
        units: NDArray[np.float64],
        loss: float = 0.0,
    ) -> None:
        """Forecasts [B, H, K, Q], truth and seasonal naive forecast [B, H, K], what counts of it, and units [B, K]."""

        def summed(values: NDArray[Any]) -> NDArray[np.float64]:
            counted = np.where(there if values.ndim == 3 else there[..., None], values, 0)
            return np.asarray(counted.sum((0, 1)), np.float64)

        error, other = true - forecast[..., self._middle], np.abs(true - naive)
        d = true[..., None] - forecast
        self.count += there.sum((0, 1))
        self.sums["absolute"] += summed(np.abs(error))
        self.sums["square"] += summed(error**2)
        self.sums["scaled"] += summed(np.abs(error) / units[:, None])
        self.sums["naive"] += summed(other)
        self.sums["naive scaled"] += summed(other / units[:, None])
        self.sums["inside"] += summed((forecast[..., 0] <= true) & (true <= forecast[..., -1]))
        self.pinball += summed(np.maximum(self._quantiles * d, (self._quantiles - 1) * d))
        self.below += summed(d <= 0)
        self._loss += loss * float(there.sum())

    @property
    def measured(self) -> dict[str, float]:
        """By name, the loss first; over all targets."""
        count = max(float(self.count.sum()), 1.0)
        mean = {name: float(value.sum()) / count for name, value in self.sums.items()}
        return {
            "loss": self._loss / count,
            "MAE": mean["absolute"],
            "RMSE": mean["square"] ** 0.5,
            "MASE": mean["scaled"],
            "naive MASE": mean["naive scaled"],
            "pinball": float(self.pinball.mean(-1).sum()) / count,
            "coverage": mean["inside"],
        }

    @property
    def standardised(self) -> dict[str, float]:
        """MSE and MAE where each target has mean 0 and deviation 1 in the training part, as papers give them."""
        scale, count = np.array(self._knows.deviation[: len(self.count)]), max(float(self.count.sum()), 1.0)
        return {
            "standardised MSE": float((self.sums["square"] / scale**2).sum()) / count,
            "standardised MAE": float((self.sums["absolute"] / scale).sum()) / count,
        }

    def table(self) -> str:
        """A line per target, and how many values are below each quantile."""
        names = self._knows.layout.targets
        count = np.maximum(self.count, 1)
        width = max(6, *map(len, names))
        rows = [f"{'target':{width}} {'MAE':>10} {'RMSE':>10} {'MASE':>7} {'naive':>7}  below each quantile"]
        for k, name in enumerate(names):
            mean = {key: value[k] / count[k] for key, value in self.sums.items()}
            shares = "  ".join(
                f"{q:g}: {share:.3f}" for q, share in zip(self._quantiles, self.below[k] / count[k], strict=True)
            )
            rows.append(
                f"{name:{width}} {mean['absolute']:10.4g} {mean['square'] ** 0.5:10.4g} {mean['scaled']:7.4f} "
                f"{mean['naive scaled']:7.4f}  {shares}"
            )
        return "\n".join(rows)
