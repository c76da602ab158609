from pathlib import Path

import pytest
import torch
from torch import nn

from cellwright import RunError
from cellwright.train import checkpoint


class Tied(nn.Module):
    def __init__(self, size: int = 3) -> None:
        super().__init__()
        self.first = nn.Linear(size, size)
        self.second = nn.Linear(size, size, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("seen", torch.zeros(2))


def test_a_shared_tensor_is_there_once() -> None:
    assert checkpoint.weights(Tied()).keys() == {"first.weight", "first.bias", "seen"}


def test_load_weights_copies_everything() -> None:
    one, other = Tied(), Tied()
    one.seen += 1
    checkpoint.load_weights(other, checkpoint.weights(one), Path("w"))
    assert all(t.equal(checkpoint.weights(one)[name]) for name, t in checkpoint.weights(other).items())
    assert other.second.weight is other.first.weight


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"first.bias": None}, "lacks tensor 'first.bias'"),
        ({"third": torch.zeros(1)}, "unknown tensor 'third'"),
        (
            {"first.bias": torch.zeros(4)},
            r"'first.bias' is torch.float32 \(4,\), and the model has torch.float32 \(3,\)",
        ),
        ({"first.bias": torch.zeros(3).double()}, "'first.bias' is torch.float64"),
    ],
)
def test_weights_of_another_model_change_nothing(change: dict[str, torch.Tensor | None], words: str) -> None:
    model = Tied()
    before = {name: t.clone() for name, t in checkpoint.weights(model).items()}
    tensors = {name: t for name, t in ({name: t + 1 for name, t in before.items()} | change).items() if t is not None}
    with pytest.raises(RunError, match=words):
        checkpoint.load_weights(model, tensors, Path("w"))
    assert all(t.equal(before[name]) for name, t in checkpoint.weights(model).items())


def test_unpack_brings_back_optimizer_and_chance() -> None:
    def trained(steps: int) -> tuple[Tied, torch.optim.Optimizer]:
        model = Tied()
        optimizer = torch.optim.Adam(model.parameters(), 0.1, fused=True)
        advance(model, optimizer, steps)
        return model, optimizer

    def advance(model: Tied, optimizer: torch.optim.Optimizer, steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            model.second(model.first(torch.randn(5, 3))).square().sum().backward()
            optimizer.step()

    model, optimizer = trained(3)
    tensors = {name: t.clone() for name, t in checkpoint.pack(model, optimizer, {"state": torch.ones(1)}).items()}
    advance(model, optimizer, 2)
    again, restored = trained(1)
    carried = checkpoint.unpack(again, restored, tensors, Path("w"))
    assert carried["state"].tolist() == [1]
    advance(again, restored, 2)
    assert all(t.equal(checkpoint.weights(model)[name]) for name, t in checkpoint.weights(again).items())
