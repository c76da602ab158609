"""Every cell with every wrapper in every situation: derivatives of both orders, and the compiled target.

An ordinary run takes the points of `covering`, which hold every pair; `--grid` takes all of them (`make grid`).
"""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch

from cellwright import OptionError, check_grads, use_target
from tests.grid import (
    CELLS,
    F64,
    FORMS,
    SITUATIONS,
    WRAPPERS,
    Point,
    absent,
    covering,
    every,
    refusal,
)
from tests.rounding import assert_roundings


def pytest_generate_tests(metafunc: Any) -> None:
    """The points of this run; those of one cell stay in one process, which compiles their kernels once."""
    if metafunc.function.__name__ not in POINTS:
        return
    names, few, whole = POINTS[metafunc.function.__name__]
    chosen = list(whole() if metafunc.config.getoption("--grid") else few())
    ids = [" / ".join(map(str, point)) for point in chosen]
    params = [pytest.param(*p, marks=pytest.mark.xdist_group(p[0])) for p in chosen]
    metafunc.parametrize(names, params, ids=ids)


COMBINED = ("everything", "in other forms")  # these hold nearly all wrappers, in the equations of one kernel


def each_with(wrappers: Iterable[str], cells: Iterable[str]) -> list[tuple[str, str]]:
    return [(c, w) for c in cells for w in wrappers if not refusal(c, w)]


def combined() -> list[tuple[str, str, str]]:
    names = list(SITUATIONS)
    return [(c, COMBINED[k % 2], names[k % len(names)]) for k, c in enumerate(CELLS)]


def few_compiled() -> list[tuple[str, str, str]]:
    """For the compiled target, which takes seconds for the kernels of each new set of equations."""
    return combined() + [p for p in covering() if p[0] == "mgu" and p[1] not in COMBINED]


# By test: its arguments, the points of an ordinary run, and all of them.
POINTS: dict[str, tuple[str, Callable[[], Iterable[Any]], Callable[[], Iterable[Any]]]] = {
    "test_gradients_of_the_plan": (
        "form, wrapper",
        lambda: dict.fromkeys(each_with(COMBINED, CELLS) + each_with(WRAPPERS, ["mgu"])),
        lambda: each_with(WRAPPERS, FORMS),
    ),
    "test_first_order": ("form, wrapper, situation", covering, every),
    "test_second_order": ("form, wrapper, situation", combined, every),
    "test_compiled_is_the_reference": ("form, wrapper, situation", few_compiled, every),
    "test_sizes": (
        "form, hidden",
        lambda: [("mgu", 1), ("gru", 63), ("mgu", 500)],
        lambda: [(f, n) for f in FORMS for n in (1, 3, 63, 500)],
    ),
}


def test_gradients_of_the_plan(form: str, wrapper: str) -> None:
    """Against finite differences, with lengths, resets and against time: what compiled targets follow."""
    check_grads(Point(form, wrapper, "plain").net)


def function_of(point: Point) -> tuple[Callable[..., torch.Tensor], list[torch.Tensor]]:
    """All results in one row, of all that a net has and is given, in float64."""
    names = list(point.leaves)
    point.net.to(F64)

    def results(*values: torch.Tensor) -> torch.Tensor:
        return torch.cat([v.flatten() for v in point.results(dict(zip(names, values, strict=True)))])

    return results, [v.to(F64).requires_grad_() for v in point.leaves.values()]


def test_first_order(form: str, wrapper: str, situation: str) -> None:
    assert torch.autograd.gradcheck(*function_of(Point(form, wrapper, situation)), fast_mode=True)


def test_second_order(form: str, wrapper: str, situation: str) -> None:
    assert torch.autograd.gradgradcheck(*function_of(Point(form, wrapper, situation)), fast_mode=True)


def compare(point: Point) -> None:
    """The compiled target against the reference in float64, both with the masks of one seed."""
    with use_target("cpu"):  # by its name it raises for what it cannot do
        got = point.values(torch.float32)
    with use_target("torch"):
        assert_roundings(got, point.values(F64), lambda: point.values(F64))


def test_compiled_is_the_reference(form: str, wrapper: str, situation: str) -> None:
    compare(Point(form, wrapper, situation))


def test_sizes(form: str, hidden: int) -> None:
    compare(Point(form, "everything", "stacked bidirectional, lengths, reset", hidden))


REFUSED = [(f, w, reason) for f in FORMS for w in WRAPPERS if (reason := refusal(f, w))]


@pytest.mark.parametrize(("form", "wrapper", "message"), REFUSED)
def test_what_is_refused_says_why(form: str, wrapper: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Point(form, wrapper, "plain")


def test_the_points_hold_every_pair() -> None:
    points = covering()
    wrappers = {(c, w) for c in CELLS for w in WRAPPERS if not refusal(c, w)}
    assert {(c, w) for c, w, _ in points} == wrappers
    assert {(c, s) for c, _, s in points} == {(c, s) for c in CELLS for s in SITUATIONS}
    assert {(w, s) for _, w, s in points} == {(w, s) for w in WRAPPERS for s in SITUATIONS if not absent(w, s)}
