"""Every cell with every wrapper in every situation: derivatives of both orders, and the compiled target.

An ordinary run takes the points of `covering`, which hold every pair; `--grid` takes all of them (`make grid`).
"""

from typing import Any

import pytest
import torch

from cellwright import OptionError, Recurrent, check_grads, use_target
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
from tests.rounding import UNIT, deviations


def pytest_generate_tests(metafunc: Any) -> None:
    """The points of this run; those of one cell stay in one process, which compiles their kernels once."""
    whole = metafunc.config.getoption("--grid")
    points = list(every()) if whole else covering()
    if metafunc.function is test_gradients_of_the_plan:
        chosen: Any = list(dict.fromkeys((c, w) for c, w, _ in points if not WRAPPERS[w].attentive))
    elif metafunc.function is test_first_and_second_order:
        chosen = points
    elif metafunc.function is test_compiled_is_the_reference:
        chosen = points if whole else compiled_points()
    elif metafunc.function is test_sizes:
        chosen = [(f, n) for f in (FORMS if whole else ()) for n in (1, 3, 63, 500)] + ([] if whole else FEW_SIZES)
    else:
        return
    names = {"test_gradients_of_the_plan": "form, wrapper", "test_sizes": "form, hidden"}
    metafunc.parametrize(
        names.get(metafunc.function.__name__, "form, wrapper, situation"),
        [pytest.param(*p, marks=pytest.mark.xdist_group(p[0])) for p in chosen],
        ids=[" / ".join(map(str, p)) for p in chosen],
    )


FEW_SIZES = [("gru", 1), ("gru", 63), ("mgu", 500)]


def compiled_points() -> list[tuple[str, str, str]]:
    """For the compiled target, which takes seconds for each new kernel."""
    names = list(SITUATIONS)
    cells = [(cell, "everything", names[k % len(names)]) for k, cell in enumerate(CELLS)]
    return cells


def test_gradients_of_the_plan(form: str, wrapper: str) -> None:
    """Against finite differences, with lengths, resets and against time: what compiled targets follow."""
    check_grads(Point(form, wrapper, "plain").net)


def test_first_and_second_order(form: str, wrapper: str, situation: str) -> None:
    point = Point(form, wrapper, situation)
    names = list(point.leaves)

    def results(*values: torch.Tensor) -> torch.Tensor:
        return torch.cat([v.flatten() for v in point.results(dict(zip(names, values, strict=True)))])

    leaves = [v.to(F64).requires_grad_() for v in point.leaves.values()]
    point.net.to(F64)
    assert torch.autograd.gradcheck(results, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(results, leaves, fast_mode=True)


def compare(point: Point) -> None:
    """The compiled target against the reference in float64, both with the masks of one seed.

    A few roundings of the largest number are always allowed; more than that, only where as many come about when each
    operation of the reference is rounded.
    """
    with use_target("cpu"):  # by its name it raises for what it cannot do
        got = point.values(torch.float32)
    with use_target("torch"):
        want = point.values(F64)
        error = {n: (got[n].double() - v).abs().max().item() if v.numel() else 0.0 for n, v in want.items()}
        few = {n: 4 * UNIT * v.abs().max().item() if v.numel() else 0.0 for n, v in want.items()}
        if all(error[n] <= few[n] for n in want):  # also false for a NaN
            return
        off = deviations(lambda: point.values(F64), want)
    for n in want:
        assert got[n].shape == want[n].shape
        assert error[n] <= max(few[n], 2 * off[n]), f"{n}: error {error[n]:.2e}, roundings explain {off[n]:.2e}"


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
