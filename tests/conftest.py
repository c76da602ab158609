"""What all tests share: torch.empty gives NaN, and one way to say that two tensors agree."""

from collections.abc import Callable, Iterator

import hypothesis
import pytest
import torch
from torch import Tensor

# No test is timed: a busy machine is no failure.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--grid", action="store_true", help="all points of tests/nn/test_grid.py, which takes long")


Assert = Callable[[str, Tensor | None, Tensor | None, float], None]


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """Whatever reads memory that nobody wrote gets a NaN."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.manual_seed(0)
    torch.set_num_threads(1)  # the tensors are small: a second thread would only be waited for
    yield
    torch.use_deterministic_algorithms(False)


def _assert_close(name: str, got: Tensor | None, want: Tensor | None, tolerance: float) -> None:
    if want is None or got is None:
        for one in (got, want):
            assert one is None or not one.any(), f"{name}: got {got}, want {want}"
        return
    assert got.shape == want.shape, f"{name}: got shape {tuple(got.shape)}, want {tuple(want.shape)}"
    assert got.dtype == want.dtype, f"{name}: got {got.dtype}, want {want.dtype}"
    assert not got.isnan().any(), f"{name}: NaN in the result"
    if got.numel():
        error = (got - want).abs().max().item()
        assert error <= tolerance, f"{name}: largest error {error:.2e} is {error / tolerance:.1f} x the tolerance"


@pytest.fixture
def assert_close() -> Assert:
    """`assert_close(name, got, want, tolerance)`; None stands for a gradient of zero."""
    return _assert_close
