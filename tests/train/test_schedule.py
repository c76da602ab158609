from dataclasses import dataclass

import pytest

from cellwright.train.schedule import learning_rate


@dataclass
class Settings:
    steps: int = 100
    lr: float = 2.0
    warmup_steps: int = 10
    decay: str = "cosine"
    final: float = 0.1
    clip: float = 1.0
    patience: int = 0
    eval_every: int = 10


def rates(settings: Settings) -> list[float]:
    return [learning_rate(step, settings) for step in range(settings.steps)]


def test_it_rises_linearly_and_falls_like_a_cosine() -> None:
    values = rates(Settings())
    assert values[:10] == pytest.approx([0.2 * (k + 1) for k in range(10)])
    assert values[10] == 2.0
    assert values[-1] == pytest.approx(0.2)
    assert values[10:] == sorted(values[10:], reverse=True)
    # A cosine is as far above its middle as below it.
    assert [a + b for a, b in zip(values[10:], values[:9:-1], strict=True)] == pytest.approx([2.2] * 90)


def test_without_decay_it_stays() -> None:
    assert rates(Settings(decay="none"))[9:] == [2.0] * 91


@pytest.mark.parametrize("steps", [1, 2, 11])
@pytest.mark.parametrize("warmup", [0, 1])
def test_short_trainings_have_a_rate(steps: int, warmup: int) -> None:
    assert all(0 < rate <= 2.0 for rate in rates(Settings(steps=steps, warmup_steps=warmup)))


def test_a_longer_training_stretches_the_decay() -> None:
    short, long = rates(Settings()), rates(Settings(steps=1000))
    assert long[:11] == short[:11]
    assert all(a < b for a, b in zip(short[11:], long[11:100], strict=True))
