"""Fair times on a shared machine: calls measured in turns, medians compared, every library with the same threads."""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

Call = Callable[[], Any]

REST = 0.01  # seconds; the threads of OpenMP and of other pools spin for some milliseconds before they sleep
WARM = 2  # rounds before the ones that count


def use_threads(count: int) -> None:
    """Every library computes with `count` threads. Those that read the environment must not be imported before."""
    torch.set_num_threads(count)
    flags = f"--xla_cpu_multi_thread_eigen={'true' if count > 1 else 'false'}"
    os.environ |= {
        "OMP_NUM_THREADS": str(count),
        "PJRT_NPROC": str(count),  # the thread pool of JAX
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip(),
    }


def interleaved(calls: Sequence[Call], rounds: int, *, settle: bool = False) -> list[float]:
    """Median seconds of each call, timed in turns after two rounds of warm-up.

    Absolute times mean little on a shared machine; in turns, a slow second slows them all. With `settle`, a pause and
    an untimed call come before each timed one, so that nobody pays for another library's spinning threads.
    """
    times: list[list[float]] = [[] for _ in calls]
    for k in range(rounds + WARM):
        for call, seen in zip(calls, times, strict=True):
            if settle:
                time.sleep(REST)
                call()
            seconds = once(call)
            if k >= WARM:
                seen.append(seconds)
    return [statistics.median(seen) for seen in times]


def once(call: Call) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(calls: Sequence[Call], budget: float, *, most: int = 31) -> list[float]:
    """Median seconds of each, in 5 to `most` rounds, as many as fit into about `budget` seconds."""
    for call in calls:
        call()
    one_round = sum(2 * once(call) + REST for call in calls)
    return interleaved(calls, min(most, max(5, round(budget / one_round) - WARM)), settle=True)
