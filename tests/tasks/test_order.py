import numpy as np
import pytest

from cellwright.tasks.data.order import Order, by_length


@pytest.mark.parametrize(("count", "batch"), [(1, 4), (8, 4), (1003, 4), (50, 64)])
def test_every_sequence_comes_once_per_epoch(count: int, batch: int) -> None:
    indices = np.arange(count) * 3
    order = Order(indices, np.random.default_rng(0).integers(1, 90, count), batch, 5)
    for epoch in range(2):
        seen = [order(epoch * order.batches + k) for k in range(order.batches)]
        assert sorted(np.concatenate(seen).tolist()) == indices.tolist()
        assert max(map(len, seen)) <= batch


def test_the_batch_of_a_step_depends_on_seed_and_step_only() -> None:
    lengths = np.random.default_rng(0).integers(1, 90, 500)
    first, second, other = (Order(np.arange(500), lengths, 8, seed) for seed in (1, 1, 2))
    steps = [3, 200, 64, 3, 999]
    assert all(np.array_equal(first(step), Order(np.arange(500), lengths, 8, 1)(step)) for step in steps)
    assert all(np.array_equal(first(s), second(s)) for s in reversed(range(130)))
    assert not np.array_equal(first(3), other(3))
    assert not np.array_equal(first(3), first(3 + first.batches))


def test_there_is_little_padding_and_no_order_of_length() -> None:
    lengths = np.random.default_rng(0).integers(1, 200, 4000)
    order = Order(np.arange(4000), lengths, 16, 1)
    longest = np.array([lengths[order(k)].max() for k in range(order.batches)])
    padding = 1 - lengths.sum() / (longest * 16).sum()
    assert padding < 0.03  # shuffled without regard to length, it is 0.47
    assert abs(np.corrcoef(longest, np.arange(order.batches))[0, 1]) < 0.2


def test_evaluation_goes_by_length() -> None:
    lengths = np.array([5, 1, 9, 1])
    batches = [b.tolist() for b in by_length(np.array([0, 1, 2, 3]), lengths, 3)]
    assert batches == [[1, 3, 0], [2]]
