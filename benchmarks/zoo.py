"""Every cell of the package: its time to that of an LSTM, and beside torchrecurrent where that has the cell.

    python -m benchmarks.zoo [--quick] [--json FILE] [--threads N] [--only NAME ...]

The peer is optional: `pip install --no-deps torchrecurrent==0.2.5`. First each cell must agree with the reference
target, and with the peer: output and gradient of the input, from the same weights.
"""

import argparse
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import cellwright
from cellwright import Recurrent, use_target

from .cases import BOUNDS, check, inference, training_step
from .report import arguments, heading, machine, ms, summary, table, times, write
from .timing import measure, use_threads

SIZE = (64, 32, 128)  # T, B, H
BUDGET = {True: 0.2, False: 2.5}  # seconds of timing for one cell in one mode

Row = dict[str, Any]
Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Twin:
    """A cell of ours with its options, and the same one in torchrecurrent. `weights`: theirs by name to ours, which
    makes those the same that only one of the two has."""

    ours: str
    theirs: str
    options: dict[str, Any] = field(default_factory=dict)
    weights: Callable[[Weights], Weights] = lambda found: found


def _indrnn(w: Weights) -> Weights:
    """Ours has one bias, as the paper; their second is zero here."""
    w["bias_hh"].zero_()
    return {"weight_ih": w["weight_ih"], "bias_ih": w["bias_ih"], "u": w["vector_u"]}


def _peephole(w: Weights) -> Weights:
    p = dict(zip(("p_i", "p_f", "p_o"), w["weight_ph"].chunk(3), strict=True))
    return p | {n: v for n, v in w.items() if n != "weight_ph"}


def _multiplicative(w: Weights) -> Weights:
    """Ours has no biases on the way to m, as the paper; theirs are zero here."""
    H = w["weight_mh"].shape[1]
    for bias in (w["bias_ih"][:H], w["bias_hh"]):
        bias.zero_()
    found = {"weight_mx": w["weight_ih"][:H], "weight_mh": w["weight_hh"], "weight_hh": w["weight_mh"]}
    return found | {"weight_ih": w["weight_ih"][H:], "bias_ih": w["bias_ih"][H:], "bias_hh": w["bias_mh"]}


TWINS = (
    Twin("MGU", "MGU"),
    Twin("UGRNN", "UGRNN"),
    Twin("LiGRU", "LiGRU"),
    Twin("JANET", "JANET"),
    Twin("IndRNN", "IndRNN", {"activation": "tanh"}, _indrnn),
    Twin("LSTM", "PeepholeLSTM", {"peephole": True}, _peephole),
    Twin("GreffLSTM", "PeepholeLSTM", {}, _peephole),
    Twin("MultiplicativeLSTM", "MultiplicativeLSTM", {}, _multiplicative),
)


def pair(twin: Twin, peer: Any, H: int) -> tuple[Recurrent, nn.Module]:
    """Both layers, H to H, with the same weights."""
    ours = Recurrent(cellwright.nn.CELLS[f"{twin.ours}Cell"], H, H, **twin.options)
    theirs: nn.Module = getattr(peer, twin.theirs)(H, H)
    weights = {n.removeprefix("cells.0."): p.data for n, p in theirs.named_parameters() if n != "cells.0.beta"}
    for weight in weights.values():  # with some of its own, rounding errors grow a millionfold in 64 steps
        nn.init.uniform_(weight, -(H**-0.5), H**-0.5)
    ours.load_state_dict({f"{name}_l0": value for name, value in twin.weights(weights).items()}, strict=True)
    return ours, theirs


def beside(twin: Twin, peer: Any, size: Sequence[int], budget: float) -> Row:
    """A cell beside the peer's layer, as it is: TorchScript refuses it."""
    T, B, H = size
    torch.manual_seed(0)
    ours, theirs = pair(twin, peer, H)
    x, seed = torch.randn(T, B, H), torch.randn(T, B, H)
    row: Row = {"case": " ".join([twin.ours, *(f"{k}={v}" for k, v in twin.options.items())])}
    for mode in ("inference", "training"):

        def call(layer: nn.Module, mode: str = mode) -> Callable[[], Any]:
            return inference(layer, x) if mode == "inference" else training_step(layer, x, seed)

        want = _shown(mode, call(theirs)())
        check(f"{row['case']}, {mode}", _shown(mode, call(ours)()), want, BOUNDS[torch.float32])
        mine, other = measure([call(ours), call(theirs)], budget)
        row[mode] = {"seconds": mine, "torchrecurrent": other, "ratio": other / mine}
    return row


def _shown(mode: str, found: Any) -> dict[str, Tensor]:
    return {"output": found} if mode == "inference" else {"x": found[0]}


def run_peer(quick: bool) -> list[Row]:
    """All twins; prints a table."""
    try:
        peer = importlib.import_module("torchrecurrent")
    except ImportError as error:
        print(f"torchrecurrent is absent: {error}; pip install --no-deps torchrecurrent")
        return []
    size = (4, 3, 8) if quick else SIZE
    found = [beside(twin, peer, size, BUDGET[quick]) for twin in TWINS]
    rows = [["B{} H{} T{}".format(*size[1:], size[0]), "inference ms", "torchrecurrent", "ratio"]]
    rows[0] += ["training ms", "torchrecurrent", "ratio"]
    for row in found:
        cells = [row["case"]]
        for mode in ("inference", "training"):
            cells += [ms(row[mode]["seconds"]), ms(row[mode]["torchrecurrent"]), times(row[mode]["ratio"])]
        rows.append(cells)
    least = summary(row["training"]["ratio"] for row in found)
    print(f"\n{table(rows)}\ntraining: geometric mean {times(least['geometric mean'])}, min {times(least['min'])}")
    return found


def run_cells(quick: bool, only: Sequence[str] = ()) -> list[Row]:
    """Every cell with its defaults, each in turns with an LSTM of the same size; prints a table."""
    T, B, H = (4, 3, 8) if quick else SIZE
    torch.manual_seed(0)
    x, found = torch.randn(T, B, H), list[Row]()
    rows = [[f"B{B} H{H} T{T}", "inference ms", "to LSTM", "training ms", "to LSTM"]]
    plain = cellwright.LSTM(H, H)
    for name in only or cellwright.nn.CELLS:
        layer = Recurrent(cellwright.nn.CELLS[name], H, H)
        seed = torch.randn_like(layer(x)[0])
        with use_target("torch"):
            want = _results(layer, x, seed)
        check(name, _results(layer, x, seed), want, BOUNDS[torch.float32])
        row: Row = {"case": name}
        for mode in ("inference", "training"):
            calls: list[Callable[[], Any]] = [
                inference(net, x) if mode == "inference" else training_step(net, x, seed) for net in (layer, plain)
            ]
            mine, lstm = measure(calls, BUDGET[quick])
            row[mode] = {"seconds": mine, "to LSTM": mine / lstm}
        found.append(row)
        both = [(row[mode]["seconds"], row[mode]["to LSTM"]) for mode in ("inference", "training")]
        rows.append([name, *(cell for seconds, ratio in both for cell in (ms(seconds), times(ratio)))])
    print(f"\n{table(rows)}")
    return found


def _results(layer: nn.Module, x: Tensor, seed: Tensor) -> dict[str, Tensor]:
    gradients = training_step(layer, x, seed)()
    names = ["x", *(name for name, _ in layer.named_parameters())]
    return {"output": inference(layer, x)(), **dict(zip(names, gradients, strict=True))}


def main() -> None:
    """Check, measure, print."""
    parser = arguments(argparse.ArgumentParser(description=__doc__))
    parser.add_argument("--only", nargs="+", choices=cellwright.nn.CELLS, default=(), help="some of the cells")
    chosen = parser.parse_args()
    use_threads(chosen.threads)
    print(heading(machine()))
    peer = [] if chosen.only else run_peer(chosen.quick)
    write(chosen.json, {"torchrecurrent": peer, "cells": run_cells(chosen.quick, chosen.only)})


if __name__ == "__main__":
    main()
