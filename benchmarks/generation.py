"""Writing one symbol at a time: a character model's compiled step, beside an eager loop of torch.

Both draw from the same distribution at the same temperature. First they must agree on the logits along one text.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from .charlm import SYMBOLS, Peer, pair
from .timing import interleaved

CASES = ((128, 1), (128, 16), (512, 1), (512, 16))  # H of both layers, streams
TEMPERATURE = 0.8
SYMBOLS_PER_CALL = 50


def eager(model: Peer, streams: int) -> Callable[[int], Tensor]:
    """The loop that one writes with torch.nn: draws some symbols, from a zero state on."""

    @torch.inference_mode()
    def write(count: int) -> Tensor:
        state, ids = None, torch.zeros(1, streams, dtype=torch.int64)
        for _ in range(count):
            output, state = model.recurrent(one_hot(ids, SYMBOLS).float(), state)
            weights = (model.output(output[0]) / TEMPERATURE).softmax(-1)
            ids = torch.multinomial(weights, 1).T
        return ids

    return write


def fused(model: Any, streams: int) -> Callable[[int], Tensor]:
    """The same through the compiled step."""
    stepper = model.stepper(streams=streams)
    if stepper is None:
        raise SystemExit("the target cpu does not run here, so there is nothing to measure")

    def write(count: int) -> Tensor:
        chances = torch.rand(count, streams)
        for chance in chances:
            ids = stepper.draw(chance, TEMPERATURE)
        return ids

    return write


@torch.inference_mode()
def agree(ours: Any, theirs: Peer, streams: int) -> None:
    """The logits along a text of 20 symbols within 1e-5; SystemExit otherwise."""
    stepper, state = ours.stepper(streams=streams), None
    for ids in torch.randint(0, SYMBOLS, (20, streams)):
        stepper.ids.copy_(ids)
        got = stepper.step()
        output, state = theirs.recurrent(one_hot(ids[None], SYMBOLS).float(), state)
        error = (got - theirs.output(output[0])).abs().max().item()
        if not error < 1e-5:
            raise SystemExit(f"the two loops do not agree: {error:.1e}")


def run(quick: bool) -> list[dict[str, Any]]:
    """Check, measure, print: microseconds per step of all streams."""
    results = []
    print()
    for hidden, streams in CASES[:1] if quick else CASES:
        ours, theirs = (model.eval() for model in pair(2, hidden))
        agree(ours, theirs, streams)
        calls = [fused(ours, streams), eager(theirs, streams)]
        seconds = interleaved([lambda write=write: write(SYMBOLS_PER_CALL) for write in calls], 5 if quick else 31)
        mine, peer = (s / SYMBOLS_PER_CALL * 1e6 for s in seconds)
        name = f"generation, 2 x LSTM {hidden}, {streams} stream{'s' if streams > 1 else ''}"
        results.append({"case": name, "cellwright": mine, "torch": peer, "ratio": peer / mine})
        print(f"{name:42} cellwright {mine:7.1f} us a step   torch, eager loop {peer:7.1f}   ratio {peer / mine:.1f}x")
    return results
