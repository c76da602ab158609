import pytest
import torch

from cellwright.tasks.charlm.state import State, detach, flatten, unflatten


def tensors(*values: float) -> list[torch.Tensor]:
    return [torch.full((1, 2, 3), float(v)) for v in values]


a, b, c = tensors(1, 2, 3)
SHAPES = [a, (a,), (a, b), ((a, b), c), ((a,), (b, (c,))), tuple(tensors(*range(12)))]


def same(left: State, right: State) -> bool:
    if isinstance(left, torch.Tensor) or isinstance(right, torch.Tensor):
        return left is right
    return len(left) == len(right) and all(map(same, left, right))


@pytest.mark.parametrize("state", SHAPES)
def test_flatten_and_unflatten_are_inverse(state: State) -> None:
    assert same(unflatten(flatten(state)), state)


@pytest.mark.parametrize("state", SHAPES)
def test_detach_keeps_the_shape_and_the_values(state: State) -> None:
    history = {name: t.clone().requires_grad_() * 1 for name, t in flatten(state).items()}
    cut = flatten(detach(unflatten(history)))
    assert cut.keys() == history.keys()
    assert all(not t.requires_grad and t.equal(history[name]) for name, t in cut.items())


def test_a_state_that_is_not_there_is_an_error() -> None:
    with pytest.raises(KeyError):
        unflatten({"other": a})
