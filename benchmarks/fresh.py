"""What only a fresh process shows: the first use of a cell, with and without compiled kernels, and memory.

    python -m benchmarks.fresh [--quick] [--json FILE] [--threads N]
    python -m benchmarks.fresh --child first|memory CELL T B H        one measurement, as a number

The first use is the wall time of making a layer and of one forward and backward, after the imports. Memory is by how
much one training step raises the peak of the resident set, after a tiny one has loaded the code: what it keeps for the
way back, its gradients, and what it needs meanwhile. Both libraries' numbers are read in the same way.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import cellwright
from cellwright import Recurrent

from .cases import training_step
from .report import arguments, heading, machine, ms, table, times, write
from .timing import use_threads
from .variants import NormLSTM

ROOT = Path(__file__).parent.parent
MAKE: dict[str, Callable[[int], nn.Module]] = {
    "LSTM": lambda H: cellwright.LSTM(H, H),
    "GRU": lambda H: cellwright.GRU(H, H),
    "peephole": lambda H: cellwright.LSTM(H, H, peephole=True),
    "norm": lambda H: Recurrent(NormLSTM, H, H),
    "torch.nn.LSTM": lambda H: nn.LSTM(H, H),
    "torch.nn.GRU": lambda H: nn.GRU(H, H),
}
FIRST = {"LSTM": "torch.nn.LSTM", "GRU": "torch.nn.GRU", "peephole": None, "norm": None}  # cells with their peers
FIRST_SIZE = (64, 32, 128)  # T, B, H
MEMORY_SIZES = ((64, 32, 256), (64, 64, 512))

Row = dict[str, Any]


def first(cell: str, T: int, B: int, H: int) -> float:
    """Seconds of the first use in this process."""
    x, seed = torch.randn(T, B, H), torch.randn(T, B, H)
    start = time.perf_counter()
    training_step(MAKE[cell](H), x, seed)()
    return time.perf_counter() - start


def memory(cell: str, T: int, B: int, H: int) -> float:
    """Bytes by which one training step raises the peak of this process."""
    training_step(MAKE[cell](8), torch.randn(2, 2, 8), torch.randn(2, 2, 8))()
    step = training_step(MAKE[cell](H), torch.randn(T, B, H), torch.randn(T, B, H))
    before = peak(reset=True)
    gradients = step()
    after = peak()
    del gradients
    return after - before


def peak(reset: bool = False) -> float:
    """Bytes of the largest resident set, since the last reset where the system can forget (Linux), else ever."""
    status, forget = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    try:
        if reset:
            forget.write_text("5")
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return 1024 * float(line.split()[1])
    except (OSError, ValueError):
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return float(largest if sys.platform == "darwin" else 1024 * largest)


def child(what: str, cell: str, size: Sequence[int], cache: Path) -> float:
    """One measurement in a process of its own, with the kernel cache in `cache`."""
    command = [sys.executable, "-m", "benchmarks.fresh", "--child", what, cell, *map(str, size)]
    environment = os.environ | {"CELLWRIGHT_CACHE": str(cache), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return float(json.loads(done.stdout.splitlines()[-1]))


def first_uses(repeats: int, cells: Sequence[str] = tuple(FIRST), size: Sequence[int] = FIRST_SIZE) -> list[Row]:
    """Each cell with an empty and with a filled cache; prints a table."""
    found, rows = (
        list[Row](),
        [["first use, B{} H{}".format(*size[1:]), "cold cache ms", "warm cache ms", "torch.nn ms"]],
    )
    for cell in cells:
        cold, warm, other = [], [], []
        for _ in range(repeats):  # in turns
            with tempfile.TemporaryDirectory() as folder:
                cold.append(child("first", cell, size, Path(folder)))
                warm.append(child("first", cell, size, Path(folder)))
                if peer := FIRST[cell]:
                    other.append(child("first", peer, size, Path(folder)))
        row: Row = {"case": cell, "cold": statistics.median(cold), "warm": statistics.median(warm)}
        row["torch.nn"] = statistics.median(other) if other else None
        found.append(row)
        rows.append([cell, *(ms(row[name]) for name in ("cold", "warm", "torch.nn"))])
    print(f"\n{table(rows)}")
    return found


def memories(repeats: int, sizes: Sequence[tuple[int, int, int]] = MEMORY_SIZES) -> list[Row]:
    """A training step of the LSTM beside torch.nn.LSTM's; prints a table."""
    found, rows = list[Row](), [["memory of a training step", "cellwright MiB", "torch.nn MiB", "to torch.nn"]]
    with tempfile.TemporaryDirectory() as folder:
        for T, B, H in sizes:
            both = [
                [child("memory", cell, (T, B, H), Path(folder)) for cell in ("LSTM", "torch.nn.LSTM")]
                for _ in range(repeats)
            ]
            ours, theirs = (statistics.median(values) for values in zip(*both, strict=True))
            row: Row = {
                "case": f"LSTM B{B} H{H}",
                "bytes": ours,
                "torch.nn bytes": theirs,
                "to torch.nn": ours / theirs if theirs else None,
            }
            found.append(row)
            rows.append([row["case"], f"{ours / 2**20:.1f}", f"{theirs / 2**20:.1f}", times(row["to torch.nn"])])
    print(f"\n{table(rows)}")
    return found


def run_first(quick: bool) -> list[Row]:
    """The first uses as the command line asks for them."""
    return first_uses(1, ("LSTM",)) if quick else first_uses(3)


def run_memory(quick: bool) -> list[Row]:
    """The memory as the command line asks for it."""
    return memories(1, MEMORY_SIZES[:1]) if quick else memories(3)


def main() -> None:
    """Measure, print."""
    parser = arguments(argparse.ArgumentParser(description=__doc__))
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        what, cell, *size = chosen.child
        T, B, H = map(int, size)
        print(json.dumps({"first": first, "memory": memory}[what](cell, T, B, H)))
        return
    use_threads(chosen.threads)
    print(heading(machine()))
    write(chosen.json, {"first use": run_first(chosen.quick), "memory": run_memory(chosen.quick)})


if __name__ == "__main__":
    main()
