"""Attention over a memory in the compiled loop, beside a loop of torch.nn.LSTMCell with the same attention.

    python -m benchmarks.attention [--quick] [--json FILE] [--threads N]

Training is forward and backward with the gradients of x, of the memory and of all weights; first they must agree.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cellwright import Attentive, LSTMCell

from .cases import BOUNDS, check, inference, training_step
from .report import arguments, heading, machine, ms, table, times, write
from .timing import measure, use_threads

SIZES = ((30, 8, 30, 64), (30, 32, 30, 128), (50, 32, 100, 128), (30, 32, 30, 256))  # T, B, S, H
SCORES = ("additive", "general", "dot")
BUDGET = {True: 0.3, False: 6.0}  # seconds of timing for one case

Row = dict[str, Any]


class Eager(nn.Module):
    """The loop in torch: the operation of nn.LSTMCell and the attention for each step; the keys before the loop."""

    def __init__(self, twin: Attentive) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(twin.recurrent.input_size, twin.recurrent.hidden_size)  # its weights' names
        self.recurrent.load_state_dict(twin.recurrent.state_dict())
        self.attention = twin.attention

    def forward(self, x: Tensor, memory: Tensor) -> tuple[Tensor]:
        """x [T, B, I] and memory [S, B, M] to the output [T, B, H]."""
        own, weights = self.attention, list(self.recurrent.parameters())
        keys = memory if own.score == "dot" else own.key(memory)
        state, outputs = (x.new_zeros(x.shape[1], self.recurrent.hidden_size),) * 2, []
        for step in x:
            if own.score == "additive":
                scores = own.energy(torch.tanh(own.query(state[0]) + keys)).squeeze(-1)
            else:
                scores = (state[0] * keys).sum(-1)
            context = (scores.softmax(0).unsqueeze(-1) * memory).sum(0)
            state = torch.lstm_cell(torch.cat([step, context], -1), state, *weights)
            outputs.append(state[0])
        return (torch.stack(outputs),)


class Beside(nn.Module):
    """A net with its memory, as one more weight: its gradient is wanted too."""

    def __init__(self, net: nn.Module, memory: Tensor) -> None:
        super().__init__()
        self.net, self.memory = net, nn.Parameter(memory.clone())

    def forward(self, x: Tensor) -> Any:
        """What the net gives."""
        return self.net(x, self.memory)


def attention(budget: float, sizes: Sequence[tuple[int, int, int, int]] = SIZES) -> list[Row]:
    """Every score at some sizes; prints a table."""
    found: list[Row] = []
    rows = [["", "inference ms", "torch ms", "times", "training ms", "torch ms", "times"]]
    for T, B, S, H in sizes:
        for score in SCORES if SIZES[1] == (T, B, S, H) or len(sizes) == 1 else SCORES[:1]:
            torch.manual_seed(0)
            ours = Attentive(LSTMCell(H + H, H), H, score=score)
            x, memory, seed = torch.randn(T, B, H), torch.randn(S, B, H), torch.randn(T, B, H)
            nets = [Beside(net, memory) for net in (ours, Eager(ours))]
            case = f"{score}, T{T} B{B} S{S} H{H}"
            got, want = ({"output": net(x)[0], **_gradients(net, x, seed)} for net in nets)
            check(case, got, want, BOUNDS[torch.float32])
            shown = [case]
            for mode in ("inference", "training"):
                calls = [inference(net, x) if mode == "inference" else training_step(net, x, seed) for net in nets]
                seconds = measure(calls, budget)
                found.append({"case": case, "mode": mode, "seconds": seconds, "torch": seconds[1] / seconds[0]})
                shown += [*map(ms, seconds), times(seconds[1] / seconds[0])]
            rows.append(shown)
    print(f"\nLSTM with attention, beside an eager loop\n{table(rows)}")
    return found


def _gradients(net: Beside, x: Tensor, seed: Tensor) -> dict[str, Tensor]:
    return dict(zip(["x", *(name for name, _ in net.named_parameters())], training_step(net, x, seed)(), strict=True))


def run(quick: bool) -> list[Row]:
    """All of it, as the command line asks for it."""
    return attention(BUDGET[quick], SIZES[1:2] if quick else SIZES)


def main() -> None:
    """Check, measure, print."""
    chosen = arguments(argparse.ArgumentParser(description=__doc__)).parse_args()
    use_threads(chosen.threads)
    print(heading(machine()))
    write(chosen.json, {"attention": run(chosen.quick)})


if __name__ == "__main__":
    main()
