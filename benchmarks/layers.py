"""The grid: RNN, LSTM and GRU beside torch.nn and the optional peers, in one run, after the numbers agree.

    python -m benchmarks.layers [--quick] [--json FILE] [--threads N] [--dtype float32|bfloat16]

T = 64 steps, I = H inputs. Inference is the output of all steps; training is forward and backward, with the gradients
of the inputs and of all weights. Each case is first compared with torch.nn in float32. A ratio is a peer's time over
ours: above 1x this package is faster. bfloat16 is measured beside torch.nn only.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import torch

from .cases import BOUNDS, KINDS, Case, Run, Values, fastest, our_runs, reference, torch_runs
from .peers import Peer, present
from .report import arguments, heading, machine, ms, summary, table, times, write
from .timing import measure, use_threads

STEPS = 64
SIZES = ((1, 128), (1, 512), (8, 128), (8, 512), (32, 128), (32, 256), (64, 512))  # (B, H)
QUICK = ((1, 128), (32, 128))
BUDGET = {True: 0.5, False: 8.0}  # seconds of timing for one case, quick or not
OURS, TORCH = "cellwright", "torch.nn"

Row = dict[str, Any]


def measure_case(case: Case, training: bool, dtype: torch.dtype, peers: Sequence[Peer], budget: float) -> Row:
    """Check everybody, choose their settings, time them in turns."""
    want = reference(case, training)
    name, bound = f"{case} {'training' if training else 'inference'}", BOUNDS[dtype]
    runs = {
        OURS: fastest(f"{OURS}, {name}", our_runs(case, training, dtype), want, bound),
        TORCH: fastest(f"{TORCH}, {name}", torch_runs(case, training, dtype), want, bound),
    }
    for peer in peers:
        run = _of_peer(peer, case, training, want)
        if run is not None:
            runs[peer.name] = run
    seconds = dict(zip(runs, measure([run.call for run in runs.values()], budget), strict=True))
    return {
        "case": str(case),
        "kind": case.kind,
        "T": case.T,
        "B": case.B,
        "H": case.H,
        "dtype": str(dtype).removeprefix("torch."),
        "mode": "training" if training else "inference",
        "seconds": seconds,
        "settings": {name: run.setting for name, run in runs.items()},
        "ratios": {name: s / seconds[OURS] for name, s in seconds.items() if name != OURS},
    }


def _of_peer(peer: Peer, case: Case, training: bool, want: Values) -> Run | None:
    """A peer's fastest run; None when it has none. One that cannot run a case is said, and does not end the others'."""
    try:
        runs = peer.runs(case, training)
        return fastest(f"{peer.name}, {case}", runs, want, BOUNDS[torch.float32]) if runs else None
    except Exception as error:
        print(f"{peer.name} cannot run {case}: {type(error).__name__}: {error}")
        return None


def show(rows: Sequence[Row]) -> str:
    """The rows of one mode and dtype: times in ms and ratios, then the geometric mean and the smallest ratio."""
    others = list(dict.fromkeys(name for row in rows for name in row["ratios"]))
    shown = [
        [f"{rows[0]['mode']}, {rows[0]['dtype']}", f"{OURS} ms", *(h for n in others for h in (f"{n} ms", "ratio"))]
    ]
    for row in rows:
        cells = [row["case"], ms(row["seconds"][OURS])]
        for name in others:
            cells += [ms(row["seconds"].get(name)), times(row["ratios"].get(name))]
        shown.append(cells)
    means = [summary(row["ratios"][name] for row in rows if name in row["ratios"]) for name in others]
    for what in ("geometric mean", "min"):
        shown.append([what, "", *(cell for mean in means for cell in ("", times(mean[what])))])
    return table(shown)


def grid(
    sizes: Sequence[tuple[int, int]], steps: int, dtype: torch.dtype, peers: Sequence[Peer], budget: float
) -> list[Row]:
    """All kinds and sizes; prints a table for inference and one for training."""
    found: list[Row] = []
    for training in (False, True):
        rows = [
            measure_case(Case.random(kind, steps, B, H), training, dtype, peers, budget)
            for kind in KINDS
            for B, H in sizes
        ]
        print(f"\n{show(rows)}")
        found += rows
    return found


def run(quick: bool, dtype: torch.dtype, peers: Sequence[Peer]) -> list[Row]:
    """The grid as the command line asks for it."""
    return grid(QUICK if quick else SIZES, STEPS, dtype, peers if dtype == torch.float32 else (), BUDGET[quick])


def main() -> None:
    """Check, measure, print."""
    parser = arguments(argparse.ArgumentParser(description=__doc__))
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="bfloat16: by autocast")
    chosen = parser.parse_args()
    use_threads(chosen.threads)
    peers, absences = present() if chosen.dtype == "float32" else ([], [])
    print(heading(machine()), *absences, sep="\n")
    write(chosen.json, {"layers": run(chosen.quick, getattr(torch, chosen.dtype), peers)})


if __name__ == "__main__":
    main()
