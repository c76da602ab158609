"""Run a kernel on several threads: those of the OpenMP runtime that torch has loaded, so that none are added."""

import ctypes
import os
from functools import cache
from pathlib import Path

import torch

_ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _State:
    """The runtime, and whether this process may start threads: after a fork its threads are gone."""

    runtime: ctypes.CDLL | None = None
    searched = False
    forked = False


def _after_fork() -> None:
    _State.forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _runtime() -> ctypes.CDLL | None:
    """GNU's OpenMP runtime, if torch uses that."""
    if not _State.searched:
        _State.searched = True
        for path in sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*")):
            try:
                library = ctypes.CDLL(str(path))
            except OSError:
                continue
            if hasattr(library, "GOMP_parallel"):
                _State.runtime = library
    return _State.runtime


def threads() -> int:
    """How many threads a kernel may use now."""
    return torch.get_num_threads() if _runtime() is not None and not _State.forked else 1


def addresses(count: int) -> tuple[int, int]:
    """The functions that tell a thread its number and the number of threads; 0 for one thread, which need not ask."""
    library = _runtime()
    if count == 1 or library is None:
        return 0, 0
    return _address(library.omp_get_thread_num), _address(library.omp_get_num_threads)


@cache
def yield_address() -> int:
    """The function with which a waiting thread leaves the processor to others; 0 without threads to wait for."""
    return 0 if _runtime() is None else _address(ctypes.CDLL(None).sched_yield)


def _address(function: object) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0  # type: ignore[arg-type]


def run(function: int, arguments: int, count: int) -> None:
    """Call `function(arguments)` on `count` threads at once; Python's lock is free meanwhile."""
    library = _runtime()
    if count == 1 or library is None:
        _ENTRY(function)(arguments)
    else:
        library.GOMP_parallel(ctypes.c_void_p(function), ctypes.c_void_p(arguments), ctypes.c_uint(count), 0)
