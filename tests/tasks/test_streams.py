import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwright.tasks.charlm.streams import IGNORE, Streams, cuts, evaluation_chunks


@given(st.integers(1, 7), st.integers(1, 9), st.integers(0, 200))
def test_training_streams_are_contiguous(batch: int, chunk: int, more: int) -> None:
    ids = np.arange(batch * chunk + 1 + more, dtype=np.uint16)
    streams = Streams(ids, batch, chunk)
    length = (len(ids) - 1) // batch
    assert streams.chunks == length // chunk >= 1
    for k in range(streams.chunks):
        x, y = streams(k)
        assert x.shape == y.shape == (chunk, batch)
        assert (y == x + 1).all()
        assert x[0].tolist() == [b * length + k * chunk for b in range(batch)]
        assert (x[1:] == x[:-1] + 1).all()


@given(st.integers(2, 300), st.integers(1, 20), st.integers(1, 50))
def test_evaluation_predicts_every_symbol_but_the_first_once(count: int, streams: int, chunk: int) -> None:
    ids = np.arange(count, dtype=np.uint16)
    seen: list[int] = []
    for b in range(streams):
        inputs, targets = [], []
        for x, y in evaluation_chunks(ids, streams, chunk):
            assert x.shape == y.shape
            assert x.shape[0] <= chunk
            assert x.shape[1] == streams
            valid = y[:, b] != IGNORE
            inputs += x[valid, b].tolist()
            targets += y[valid, b].tolist()
        assert targets == [i + 1 for i in inputs]
        assert inputs == list(range(inputs[0], inputs[0] + len(inputs))) if inputs else True
        seen += targets
    assert seen == list(range(1, count))


def test_evaluation_streams_are_nearly_equal() -> None:
    ((_, y),) = evaluation_chunks(np.arange(12, dtype=np.uint8), 4, 100)
    assert (y != IGNORE).sum(0).tolist() == [3, 3, 3, 2]


@pytest.mark.parametrize("parts", [(0.05, 0.05), (0.5, 0.0), (0.2, 0.3)])
def test_the_last_symbols_are_for_validation_and_test(parts: tuple[float, float]) -> None:
    middle, last = cuts(1000, *parts)
    assert (last - middle, 1000 - last) == (round(1000 * parts[0]), round(1000 * parts[1]))
