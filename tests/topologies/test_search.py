"""Greedy and beam search beside searches written out for one sequence, and beside looking at all there are."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from cellwright import InputError, OptionError
from cellwright.topologies import Hypotheses, beam_search, greedy_search, length_penalty

F64 = torch.float64
END = 1


class Table:
    """A net whose logits are drawn for every sequence and beginning: the state is the number of the beginning."""

    def __init__(self, B: int, V: int, steps: int) -> None:
        self.V, self.count = V, min((V + 1) ** steps, 1009)  # long beginnings share their logits
        self.logits = torch.randn(B, self.count, V, dtype=F64)

    def state(self) -> tuple[Tensor, tuple[Tensor]]:
        """Each row's sequence, and its place: [.., B, 1] in a nest, as states are."""
        B = len(self.logits)
        return torch.arange(B).view(1, B, 1), (torch.zeros(B, 1, dtype=torch.int64),)

    def __call__(self, ids: Tensor, state: Any) -> tuple[Tensor, Any]:
        rows, (place,) = state
        place = (place * (self.V + 1) + ids.unsqueeze(1) + 1) % self.count
        return self.logits[rows.flatten(), place.flatten()], (rows, (place,))

    def log_p(self, b: int, text: tuple[int, ...]) -> Tensor:
        """The log-probabilities of the symbols after `text`, [V]."""
        place = 0
        for symbol in (0, *text):
            place = (place * (self.V + 1) + symbol + 1) % self.count
        return self.logits[b, place].log_softmax(-1)


def penalty(length: int, alpha: float) -> float:
    return math.exp(alpha * (math.log(5 + length) - math.log(6)))


def plain_beam(table: Table, b: int, K: int, steps: int, alpha: float) -> list[tuple[tuple[int, ...], float, float]]:
    """One sequence, with lists: (text with its end, log p, score), best first."""
    live: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    found: list[tuple[tuple[int, ...], float, float]] = []
    for t in range(1, steps + 1):
        grown = [
            ((*text, v), p + float(q)) for text, p in live for v, q in enumerate(table.log_p(b, text)) if q > -math.inf
        ]
        grown.sort(key=lambda one: -one[1])  # stable: of equals, the better beginning and the smaller symbol
        found += [(text, p, p / penalty(t, alpha)) for text, p in grown[:K] if text[-1] == END]
        live = [(text, p) for text, p in grown[: 2 * K] if text[-1] != END][:K]
        found = sorted(found, key=lambda one: -one[2])[:K]
        if len(found) == K:
            return found
    found += [(text, p, p / penalty(steps, alpha)) for text, p in live]
    return sorted(found, key=lambda one: -one[2])[:K]


def listed(h: Hypotheses, b: int) -> list[tuple[tuple[int, ...], float, float]]:
    """The hypotheses of one sequence, as `plain_beam` has them."""
    made = []
    for k in range(h.lengths.shape[1]):
        if h.log_probability[b, k] > -math.inf:
            n = int(h.lengths[b, k])
            assert (h.ids[n:, b, k] == END).all()
            text = (*h.ids[:n, b, k].tolist(), *([END] if h.finished[b, k] else []))
            made.append((text, h.log_probability[b, k].item(), h.score[b, k].item()))
    return made


def same(got: Any, want: Any) -> None:
    assert [g[0] for g in got] == [w[0] for w in want]
    for (_, p, score), (_, q, wanted) in zip(got, want, strict=True):
        assert p == pytest.approx(q, abs=1e-12) and score == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@pytest.mark.parametrize(("V", "steps"), [(2, 5), (3, 4), (4, 3)])
def test_a_beam_that_is_wide_enough_sees_everything(V: int, steps: int, alpha: float) -> None:
    """Every sequence that ends within the steps, or that does not end, in the order of its score."""
    table = Table(3, V, steps)
    K = sum(V**t for t in range(1, steps + 1))
    h = beam_search(
        table, table.state(), torch.zeros(3, dtype=torch.int64), end=END, max_length=steps, beam_width=K, alpha=alpha
    )
    others = [v for v in range(V) if v != END]
    texts = [(*t, END) for n in range(steps) for t in itertools.product(others, repeat=n)]
    texts += list(itertools.product(others, repeat=steps))
    for b in range(3):
        want = []
        for text in texts:
            p = sum(float(table.log_p(b, text[:t])[v]) for t, v in enumerate(text))
            want.append((text, p, p / penalty(len(text), alpha)))
        same(listed(h, b), sorted(want, key=lambda one: -one[2]))


@pytest.mark.parametrize("alpha", [0.0, 0.6, 4.0])  # 4: what ends later would often be better
@pytest.mark.parametrize(("V", "K"), [(2, 3), (5, 1), (5, 2), (5, 4), (9, 20)])
def test_a_batch_is_each_sequence_alone(V: int, K: int, alpha: float) -> None:
    table = Table(8, V, 6)
    table.logits[:3] = 0  # all sequences of a length are equally probable: their order is that of the symbols
    start = torch.zeros(8, dtype=torch.int64)
    h = beam_search(table, table.state(), start, end=END, max_length=6, beam_width=K, alpha=alpha)
    assert h.ids.shape[1:] == h.lengths.shape == (8, K)
    for b in range(8):
        same(listed(h, b), plain_beam(table, b, K, 6, alpha))


def test_greedy_is_a_beam_of_one_and_the_largest_symbol() -> None:
    table = Table(20, 6, 7)
    start = torch.zeros(20, dtype=torch.int64)
    ids, lengths = greedy_search(table, table.state(), start, end=END, max_length=7).best
    for alpha in (0.0, 1.5):
        beam = beam_search(table, table.state(), start, end=END, max_length=7, beam_width=1, alpha=alpha)
        assert torch.equal(beam.best[0], ids) and torch.equal(beam.best[1], lengths)
    for b in range(20):
        text: tuple[int, ...] = ()
        while len(text) < 7 and (not text or text[-1] != END):
            text = (*text, int(table.log_p(b, text).argmax()))
        n = len(text) - (text[-1] == END)
        assert int(lengths[b]) == n and tuple(ids[:n, b].tolist()) == text[:n]


@pytest.mark.parametrize("V", [5, 100, 1000])
@pytest.mark.parametrize("equals", [2, 3])
def test_of_equals_the_smaller_symbol(V: int, equals: int) -> None:
    """Two that are both among those looked at, and three, of which one is not."""
    largest = torch.stack([torch.randperm(V - 2)[:equals] + 2 for _ in range(300)])
    logits = torch.zeros(300, V).scatter(1, largest, 1.0)
    start = torch.zeros(300, dtype=torch.int64)
    ids, _ = greedy_search(lambda ids, state: (logits, state), torch.zeros(300, 1), start, end=END, max_length=1).best
    assert torch.equal(ids[0], largest.min(1).values)


def test_a_length_penalty_lengthens() -> None:
    """0.5 to end at once; going on costs 0.5 and 0.9 for each of two more: the longer one wins with a large alpha."""

    def step(ids: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        late = state > 0
        logits = torch.where(late, torch.tensor([[0.05, 0.9, 0.05]]), torch.tensor([[0.02, 0.51, 0.47]])).log()
        return logits, state + 1

    start = torch.zeros(1, dtype=torch.int64)
    found = [
        beam_search(step, torch.zeros(1, 1), start, end=END, max_length=5, beam_width=2, alpha=alpha)
        for alpha in (0.0, 3.0)
    ]
    assert [int(h.best[1][0]) for h in found] == [0, 1]
    # ln 0.51 and ln (0.47 * 0.9), by ((5 + n) / 6)^3 for one and two symbols
    want = [math.log(0.47 * 0.9) / (7 / 6) ** 3, math.log(0.51)]
    assert found[1].score[0].tolist() == pytest.approx(want, abs=1e-6)
    assert length_penalty(1, 0.6) == 1 and length_penalty(7, 1.0) == 2 and length_penalty(19, 0.5) == 2


def test_an_impossible_symbol_is_never_found() -> None:
    """Only one text is possible; the other places of the beam stay empty."""

    def step(ids: Tensor, state: Any) -> tuple[Tensor, Any]:
        logits = torch.full((len(ids), 4), -math.inf)
        logits[torch.arange(len(ids)), torch.tensor([2, 1, 3, 1])[ids]] = 0
        return logits, state

    start = torch.zeros(1, dtype=torch.int64)
    h = beam_search(step, torch.zeros(1, 1), start, end=END, max_length=9, beam_width=3)
    assert listed(h, 0) == [((2, 3, 1), 0.0, 0.0)]
    assert not h.finished[0, 1:].any() and not h.lengths[0, 1:].any()


def test_nothing_to_search() -> None:
    table = Table(0, 3, 4)
    h = beam_search(table, table.state(), torch.zeros(0, dtype=torch.int64), end=END, max_length=4)
    assert h.ids.shape[1:] == (0, 5) and h.best[1].shape == (0,)


def test_a_search_stops_when_all_have_ended() -> None:
    calls = []

    def step(ids: Tensor, state: Any) -> tuple[Tensor, Any]:
        calls.append(1)
        return torch.tensor([0.0, 9.0 if len(calls) > 2 else -9.0]).expand(len(ids), 2), state

    greedy_search(step, torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64), end=END, max_length=1000)
    assert len(calls) == 3


def logits_of(value: Any) -> Any:
    return lambda ids, state: (value(len(ids)), state)


@pytest.mark.parametrize(
    ("step", "options", "error", "words"),
    [
        (lambda n: torch.zeros(n, 3), {"beam_width": 0}, OptionError, "beam_width"),
        (lambda n: torch.zeros(n, 3), {"beam_width": 1.5}, OptionError, "beam_width"),
        (lambda n: torch.zeros(n, 3), {"max_length": 0}, OptionError, "max_length"),
        (lambda n: torch.zeros(n, 3), {"alpha": -1}, OptionError, "alpha"),
        (lambda n: torch.zeros(n, 3), {"alpha": math.nan}, OptionError, "alpha"),
        (lambda n: torch.zeros(n, 3), {"end": 3}, OptionError, "end symbol 3, expected 0 to 2"),
        (lambda n: torch.zeros(n, 3), {"start": torch.zeros(2)}, InputError, "first inputs"),
        (lambda n: torch.zeros(n, 3), {"start": 0}, InputError, "first inputs"),
        (lambda n: torch.zeros(1, n, 3), {}, InputError, "expected \\[10, V\\]"),
        (lambda n: torch.zeros(2, 3), {}, InputError, "expected \\[10, V\\]"),
        (lambda n: torch.full((n, 3), math.nan), {}, InputError, "NaN"),
        (lambda n: torch.full((n, 3), -math.inf), {}, InputError, "NaN"),
    ],
)
def test_wrong_calls(step: Any, options: dict[str, Any], error: Any, words: str) -> None:
    given: dict[str, Any] = {"start": torch.zeros(2, dtype=torch.int64), "end": END, "max_length": 4} | options
    with pytest.raises(error, match=words):
        beam_search(logits_of(step), torch.zeros(2, 1), given.pop("start"), **given)
