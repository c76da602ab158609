"""What a change of the equations costs, and what padding costs: variants beside the plain cell, lengths beside none.

    python -m benchmarks.variants [--quick] [--json FILE] [--threads N]

First each variant must agree with the reference target, and `lengths` with torch's packed sequences.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import cellwright
from cellwright import Recurrent, cells, sigmoid, tanh, use_target

from .cases import BOUNDS, check, inference, training_step
from .report import arguments, heading, machine, ms, table, times, write
from .timing import measure, use_threads

SIZE = (64, 32, 128)  # T, B, H
STEPWISE = cellwright.RecurrentDropout(0.25, per_step=True)
PADDED = ((64, 32, 128), (64, 64, 512))
BUDGET = {True: 0.5, False: 12.0}  # seconds of timing for one table of one mode

Row = dict[str, Any]


class NormLSTM(cells.LSTM):
    """An LSTM with layer norm of each gate's sum and of the cell state on its way out (as in TF1)."""

    def step(self, x: Any, h: Any, c: Any) -> Any:
        """One step: the next hidden state and cell state."""
        sums = self.linear("i f g o", x) + self.linear("i f g o", h)
        i, f, g, o = self.norm("n_i n_f n_g n_o", sums)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        return sigmoid(o) * tanh(self.norm("n_c", c)), c


class EagerPeephole(nn.Module):
    """The LSTM with peepholes as a loop in torch: the product with the input before the loop, the rest at each step."""

    weight_ih_l0: Tensor
    weight_hh_l0: Tensor
    bias_ih_l0: Tensor
    bias_hh_l0: Tensor
    p_i_l0: Tensor
    p_f_l0: Tensor
    p_o_l0: Tensor

    def __init__(self, twin: Recurrent) -> None:
        super().__init__()
        for name, weight in twin.state_dict().items():
            self.register_parameter(name, nn.Parameter(weight.clone()))

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """x [T, B, I] to the output [T, B, H]."""
        sums = linear(x, self.weight_ih_l0, self.bias_ih_l0 + self.bias_hh_l0)  # [T, B, 4*H]
        p_i, p_f, p_o = self.p_i_l0, self.p_f_l0, self.p_o_l0
        h = c = sums.new_zeros(x.shape[1], p_i.shape[0])
        outputs = []
        for step in sums:
            i, f, g, o = (step + h @ self.weight_hh_l0.t()).chunk(4, -1)
            c = torch.sigmoid(f + p_f * c) * c + torch.sigmoid(i + p_i * c) * torch.tanh(g)
            h = torch.sigmoid(o + p_o * c) * torch.tanh(c)
            outputs.append(h)
        return (torch.stack(outputs),)


def families(H: int) -> list[dict[str, nn.Module]]:
    """Layers to be timed together; the first of each is the plain one."""
    peephole = cellwright.LSTM(H, H, peephole=True)
    return [
        {
            "LSTM": cellwright.LSTM(H, H),
            "LSTM, peephole": peephole,
            "LSTM, coupled gates": cellwright.LSTM(H, H, coupled=True),
            "LSTM, projection to H/2": cellwright.LSTM(H, H, proj_size=H // 2),
            "LSTM, layer norm": Recurrent(NormLSTM, H, H),
            "LSTM, recurrent dropout": cellwright.LSTM(H, H, recurrent_dropout=0.25),
            "LSTM, recurrent dropout of each step": cellwright.LSTM(H, H, recurrent_dropout=STEPWISE),
            "LSTM, zoneout": cellwright.LSTM(H, H, zoneout=0.1),
            "LSTM, weight drop": cellwright.LSTM(H, H, weight_drop=0.5),
            "LSTM, learned initial state": cellwright.LSTM(H, H, learn_initial_state=True),
            "LSTM, peephole, eager torch loop": EagerPeephole(peephole),
        },
        {"GRU, reset after": cellwright.GRU(H, H), "GRU, reset before": cellwright.GRU(H, H, reset_after=False)},
    ]


def results(layer: nn.Module, x: Tensor, seed: Tensor, **options: Any) -> dict[str, Tensor]:
    """Output and gradients by name, with the random masks of one seed."""
    torch.manual_seed(1)
    gradients = training_step(layer, x, seed, **options)()
    names = ["x", *(name.rpartition(".")[2] for name, _ in layer.named_parameters())]
    return {"output": inference(layer, x, **options)(), **dict(zip(names, gradients, strict=True))}


def variants(budget: float, size: tuple[int, int, int] = SIZE) -> list[Row]:
    """All families, in inference and training; prints a table for each mode."""
    T, B, H = size
    torch.manual_seed(0)
    x, found = torch.randn(T, B, H), list[Row]()
    groups = families(H)
    seeds = {name: torch.randn_like(layer(x)[0]) for group in groups for name, layer in group.items()}
    for group in groups:
        for name, layer in group.items():
            twin = group["LSTM, peephole"] if isinstance(layer, EagerPeephole) else layer
            with use_target("torch"):
                want = results(twin, x, seeds[name])
            check(name, results(layer, x, seeds[name]), want, BOUNDS[torch.float32])
    for mode in ("inference", "training"):
        rows = [[f"{mode}, B{B} H{H}", "ms", "to plain"]]
        for group in groups:
            for layer in group.values():
                layer.train(mode == "training")
            calls: list[Callable[[], Any]] = [
                inference(layer, x) if mode == "inference" else training_step(layer, x, seeds[name])
                for name, layer in group.items()
            ]
            seconds = measure(calls, budget)
            for name, one in zip(group, seconds, strict=True):
                found.append({"case": name, "mode": mode, "seconds": one, "to plain": one / seconds[0]})
                rows.append([name, ms(one), times(one / seconds[0])])
        by_name = {row["case"]: row["seconds"] for row in found if row["mode"] == mode}
        loop = by_name["LSTM, peephole, eager torch loop"] / by_name["LSTM, peephole"]
        print(f"\n{table(rows)}\nthe eager loop takes {times(loop)} the time of the compiled peephole LSTM")
    return found


class Packed(nn.Module):
    """torch.nn.LSTM for a padded batch with lengths: packed on the way in, padded again on the way out."""

    def __init__(self, inner: nn.LSTM) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor]:
        """x [T, B, I] to the output [T, B, H], zero in the padding."""
        packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
        return (pad_packed_sequence(self.inner(packed)[0], total_length=len(x))[0],)


def spread(T: int, B: int) -> Tensor:
    """Lengths [B] from 20 % to all of T in a random order, 60 % on average."""
    lengths = torch.linspace(0.2 * T, T, B).round().long().clamp(min=1)
    return lengths[torch.randperm(B)]


def padding(budget: float, sizes: Sequence[tuple[int, int, int]] = PADDED) -> list[Row]:
    """A batch filled to 60 %, with lengths and as if it were full; prints a table for each mode."""
    found: list[Row] = []
    for mode in ("inference", "training"):
        rows = [
            [f"{mode}, filled to 60 %", "lengths ms", "padded ms", "to padded", "torch packed ms", "torch padded ms"]
        ]
        rows[0] += ["torch packed to lengths"]
        for T, B, H in sizes:
            torch.manual_seed(0)
            theirs = nn.LSTM(H, H)
            ours = cellwright.LSTM(H, H)
            ours.load_state_dict(theirs.state_dict())
            x, seed, lengths = torch.randn(T, B, H), torch.randn(T, B, H), spread(T, B)
            want = results(Packed(theirs), x, seed, lengths=lengths)
            check(f"lengths, B{B} H{H}", results(ours, x, seed, lengths=lengths), want, BOUNDS[torch.float32])
            layers: list[tuple[nn.Module, dict[str, Any]]] = [
                (ours, {"lengths": lengths}), (ours, {}), (Packed(theirs), {"lengths": lengths}), (theirs, {})
            ]  # fmt: skip
            calls: list[Callable[[], Any]] = [
                inference(layer, x, **options) if mode == "inference" else training_step(layer, x, seed, **options)
                for layer, options in layers
            ]
            seconds = measure(calls, budget)
            names = ("lengths", "padded", "torch packed", "torch padded")
            row: Row = {"case": f"LSTM B{B} H{H}", "mode": mode, "seconds": dict(zip(names, seconds, strict=True))}
            row |= {"to padded": seconds[0] / seconds[1], "torch packed to lengths": seconds[2] / seconds[0]}
            found.append(row)
            shown = [ms(seconds[0]), ms(seconds[1]), times(row["to padded"]), ms(seconds[2]), ms(seconds[3])]
            rows.append([row["case"], *shown, times(row["torch packed to lengths"])])
        print(f"\n{table(rows)}")
    return found


def run_variants(quick: bool) -> list[Row]:
    """The variants as the command line asks for them."""
    return variants(BUDGET[quick])


def run_padding(quick: bool) -> list[Row]:
    """The lengths as the command line asks for them."""
    return padding(BUDGET[quick], PADDED[:1] if quick else PADDED)


def main() -> None:
    """Check, measure, print."""
    chosen = arguments(argparse.ArgumentParser(description=__doc__)).parse_args()
    use_threads(chosen.threads)
    print(heading(machine()))
    write(chosen.json, {"variants": run_variants(chosen.quick), "padding": run_padding(chosen.quick)})


if __name__ == "__main__":
    main()
