"""How much of the machine an LSTM uses: its rate beside that of one large matrix product, in one run.

    python -m benchmarks.rate [--quick] [--json FILE] [--threads N]

Only the multiplications and additions of the matrix products count, so a share of 100 % is out of reach: the cell's own
elementwise work is done in the same time.
"""

import argparse
from typing import Any

import torch

from .cases import BOUNDS, Case, fastest, our_runs, reference, torch_runs
from .report import arguments, heading, machine, ms, table, write
from .timing import measure, use_threads

SIDE = 2048  # of the square matrices of the large product
SIZE = (64, 64, 512)  # T, B, H
QUICK = (64, 8, 128)


def products(case: Case, training: bool) -> float:
    """Floating-point operations of an LSTM's matrix products: of x and h forward; the way back has two of each more."""
    forward = 2 * case.T * case.B * 4 * case.H * (case.H + case.H)
    return float(3 * forward if training else forward)


def run(quick: bool, size: tuple[int, int, int] | None = None, side: int = SIDE) -> dict[str, Any]:
    """Rates in FLOP/s, and the LSTM's shares of the large product's; prints them."""
    case = Case.random("LSTM", *(size or (QUICK if quick else SIZE)))
    a, b = torch.randn(side, side), torch.randn(side, side)
    calls, names = [lambda: torch.mm(a, b)], []
    for training in (False, True):
        want = reference(case, training)
        for library, runs in (("cellwright", our_runs), ("torch.nn", torch_runs)):
            chosen = fastest(f"{library}, {case}", runs(case, training, torch.float32), want, BOUNDS[torch.float32])
            calls.append(chosen.call)
            names.append((library, training))
    seconds = measure(calls, 1.0 if quick else 20.0)
    large = 2 * side**3 / seconds[0]
    rows = [["matrix products", "ms", "GFLOP/s", "share"]]
    rows.append([f"torch.mm {side} x {side} x {side}", ms(seconds[0]), f"{large / 1e9:.1f}", "100 %"])
    shares: list[dict[str, Any]] = []
    for (library, training), time in zip(names, seconds[1:], strict=True):
        rate, mode = products(case, training) / time, "training" if training else "inference"
        shares.append({"library": library, "case": str(case), "mode": mode, "rate": rate, "share": rate / large})
        rows.append([f"{library} {case} {mode}", ms(time), f"{rate / 1e9:.1f}", f"{100 * rate / large:.0f} %"])
    print(f"\n{table(rows)}")
    return {"large product": large, "layers": shares}


def main() -> None:
    """Check, measure, print."""
    chosen = arguments(argparse.ArgumentParser(description=__doc__)).parse_args()
    use_threads(chosen.threads)
    print(heading(machine()))
    write(chosen.json, {"rate": run(chosen.quick)})


if __name__ == "__main__":
    main()
