"""Pictures of trainings: what is drawn on which axis."""

import math

import pytest

from cellwright.app.plot import panels
from cellwright.tasks.forecast.pictures import bands
from cellwright.tasks.job import JOBS, SHARE, find


def test_measures_with_one_unit_share_an_axis() -> None:
    scales = (("errors", "CER", "WER"), (SHARE, "accuracy", "macro F1"), ("points", "BLEU"))
    records = [{"kind": "eval", "step": 1, "loss": 2.0, "CER": 0.5, "WER": 1.5, "accuracy": 0.1, "other": 0.3}] * 2
    assert panels(records, scales) == {"errors": ["CER", "WER"], SHARE: ["accuracy"]}
    assert panels([*records, {**records[0], "step": 2} | {"accuracy": 1.0}], scales)[SHARE] == ["accuracy"]
    assert panels([], scales) == {}


@pytest.mark.parametrize("name", JOBS)
def test_only_shares_are_drawn_as_shares(name: str) -> None:
    """These have other units, although they may well lie between 0 and 1."""
    shares = {m for axis, *names in find(name).scales if axis == SHARE for m in names}
    assert not shares & {"MASE", "naive MASE", "MAE", "RMSE", "pinball", "CIDEr-D", "BLEU", "chrF", "CER", "WER"}


@pytest.mark.parametrize(
    ("quantiles", "expected"),
    [
        ((0.1, 0.5, 0.9), [(0.1, 0.9)]),
        ((0.05, 0.25, 0.5, 0.75, 0.95), [(0.05, 0.95), (0.25, 0.75)]),
        ((0.5, 0.9), [(0.5, 0.9)]),
        ((0.1, 0.2, 0.5), [(0.1, 0.5), (0.2, 0.5)]),
        ((0.5,), []),
    ],
)
def test_bands_lie_around_the_median(quantiles: tuple[float, ...], expected: list[tuple[float, float]]) -> None:
    found = [(quantiles[first], quantiles[last]) for first, last in bands(quantiles)]
    assert found == expected
    assert all(low <= 0.5 <= high and not math.isclose(low, high) for low, high in found)
