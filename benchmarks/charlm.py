"""The main job: training a character model, beside the same model with torch.nn.LSTM.

    python -m benchmarks.charlm [--quick] [--json FILE] [--threads N]

In float32, and under autocast to bfloat16. Both models get the same weights and the same text. First they must agree
on loss and gradients; then their steps are timed in turns, and the medians compared: absolute times mean little on a
shared machine, the ratio does.
"""

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from cellwright.cells import LSTM
from cellwright.tasks.charlm.model import CharModel

from .report import arguments, heading, machine, write
from .timing import interleaved, use_threads

SYMBOLS = 96
CASES = (
    ("2 x LSTM 128, batch 50, 50 steps", 2, 128, 50, 50),
    ("2 x LSTM 512, batch 64, 128 steps", 2, 512, 64, 128),
)


class Peer(nn.Module):
    """The same model with torch.nn.LSTM, which needs the one-hot vectors written out."""

    def __init__(self, layers: int, hidden: int) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(SYMBOLS, hidden, layers)
        self.output = nn.Linear(hidden, SYMBOLS)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids [T, B] to logits [T, B, V]."""
        output, _ = self.recurrent(one_hot(ids, SYMBOLS).float())
        return self.output(output)


def pair(layers: int, hidden: int) -> tuple[nn.Module, nn.Module]:
    """Our model and torch's, with the same weights."""
    torch.manual_seed(0)
    sizes = [SYMBOLS] + [hidden] * (layers - 1)
    ours = CharModel([LSTM(size, hidden).definition() for size in sizes], SYMBOLS)
    theirs = Peer(layers, hidden)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


def precision(dtype: torch.dtype) -> AbstractContextManager[Any]:
    """Where a model computes in `dtype`."""
    return nullcontext() if dtype == torch.float32 else torch.autocast("cpu", dtype)


def loss_of(model: nn.Module, ids: Tensor, dtype: torch.dtype) -> Tensor:
    """Nats per character of ids [T + 1, B]."""
    with precision(dtype):
        result = model(ids[:-1])
        logits = result[0] if isinstance(result, tuple) else result
        return cross_entropy(logits.flatten(0, 1), ids[1:].flatten())


def found(model: nn.Module, ids: Tensor, dtype: torch.dtype) -> Tensor:
    """Loss and gradients, as one vector."""
    model.zero_grad()
    loss = loss_of(model, ids, dtype)
    loss.backward()
    return torch.cat([loss.detach().flatten(), *(p.grad.flatten() for p in model.parameters())])


def agree(ours: nn.Module, theirs: nn.Module, ids: Tensor, dtype: torch.dtype) -> None:
    """SystemExit unless loss and gradients are right: no speed without that.

    In float32 they are within 1e-5 of each other; in bfloat16 ours are at most twice as far from those as torch's.
    """
    want = found(theirs, ids, torch.float32)
    error, allowed = (found(ours, ids, dtype) - want).abs().max().item(), 1e-5
    if dtype != torch.float32:
        allowed = 2 * (found(theirs, ids, dtype) - want).abs().max().item()
    if not error <= allowed:
        raise SystemExit(f"the two models do not agree in {dtype}: {error:.1e}, expected {allowed:.1e} or less")


def stepper(model: nn.Module, ids: Tensor, dtype: torch.dtype) -> Callable[[], None]:
    """One update of the weights, with everything that training does."""
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss_of(model, ids, dtype).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()

    return step


def run(quick: bool) -> list[dict[str, Any]]:
    """Check, measure, print: characters per second of both models."""
    results: list[dict[str, Any]] = []
    print()
    for name, layers, hidden, batch, steps in CASES[:1] if quick else CASES:
        for dtype in (torch.float32, torch.bfloat16):
            results.append(measured(name, layers, hidden, batch, steps, dtype, quick))
    return results


def measured(
    name: str, layers: int, hidden: int, batch: int, steps: int, dtype: torch.dtype, quick: bool
) -> dict[str, Any]:
    """One case."""
    ours, theirs = pair(layers, hidden)
    ids = torch.randint(0, SYMBOLS, (steps + 1, batch))
    agree(ours, theirs, ids, dtype)
    rounds = 5 if quick else 15 if hidden > 256 else 40
    mine, peer = interleaved([stepper(ours, ids, dtype), stepper(theirs, ids, dtype)], rounds)
    rates, kind = [batch * steps / mine, batch * steps / peer], str(dtype).removeprefix("torch.")
    print(
        f"{name:34} {kind:8}  cellwright {rates[0]:9,.0f} characters/s   torch.nn.LSTM {rates[1]:9,.0f}"
        f"   ratio {peer / mine:.2f}x"
    )
    return {"case": name, "dtype": kind, "cellwright": rates[0], "torch": rates[1], "ratio": peer / mine}


def main() -> None:
    """The main job alone."""
    chosen = arguments(argparse.ArgumentParser(description=__doc__)).parse_args()
    use_threads(chosen.threads)
    print(heading(machine()))
    write(chosen.json, {"torch": torch.__version__, "results": run(chosen.quick)})


if __name__ == "__main__":
    main()
