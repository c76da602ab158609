"""Whether tiles are used: the system must lend them, and a small product of integers must come out right.

Both are asked once per process, before the first kernel is chosen.
"""

import ctypes
import os
import struct
import sys
import warnings
from functools import cache
from itertools import product

from ...errors import TargetError
from . import build, threads
from .amx import ROWS
from .builder import Builder
from .layout import DEEP
from .machine import Machine, this_machine
from .tiles import Tiles

_PRCTL, _REQUEST, _TILES = 158, 0x1023, 18  # of Linux on x86-64: arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
_ROWS, _PAIRS = 2 * ROWS - 11, DEEP + 4  # blocks of rows that overlap, a depth that ends within a tile


@cache
def settled(machine: Machine) -> Machine:
    """The machine as its kernels are written: without its tiles where they cannot be used, with a warning."""
    reason = objection(machine)
    if reason is None:
        return machine
    warnings.warn(f"products of bfloat16 do without AMX tiles: {reason}; AVX-512 computes them", stacklevel=2)
    return machine.without_tiles()


@cache
def objection(machine: Machine) -> str | None:
    """Why the tiles of a machine cannot be used, if it has any."""
    if not machine.tiles:
        return None
    refusal = permission() if machine.tiles == "amx" else None
    if refusal is not None:
        return refusal
    try:
        wrong = trial(machine)
    except TargetError as error:
        return str(error)
    return f"{wrong} of {_ROWS * machine.lanes} numbers of a small product came out wrong" if wrong else None


def bfloat16_report() -> str:
    """How products of bfloat16 are computed on this machine."""
    machine = this_machine()
    if not machine.bfloat16:
        return "none: computed in float32"
    if not machine.tiles:
        return "AVX-512 BF16"
    reason = objection(machine)
    if reason is not None:
        return f"AVX-512 BF16 (no AMX: {reason})"
    return "AMX" if machine.tiles == "amx" else "AMX, emulated for tests"


def permission() -> str | None:
    """Ask the system for the registers, which are too large to be saved for all processes; why it refuses, if so."""
    if sys.platform != "linux":
        return f"how to ask {sys.platform} for them is not known"
    library = ctypes.CDLL(None, use_errno=True)
    if library.syscall(_PRCTL, _REQUEST, _TILES):
        return f"the system refuses them ({os.strerror(ctypes.get_errno())})"
    return None


def trial(machine: Machine) -> int:
    """How many numbers of a product of small integers differ from what they are, without any rounding."""
    lanes = machine.lanes
    left = [[(7 * r + 3 * k) % 17 - 8 for k in range(2 * _PAIRS)] for r in range(_ROWS)]
    right = [[(5 * k + 11 * n) % 13 - 6 for n in range(lanes)] for k in range(2 * _PAIRS)]
    rows = (ctypes.c_uint16 * (_ROWS * 2 * _PAIRS))(*(_bits(x) for line in left for x in line))
    panel = (ctypes.c_uint16 * (2 * DEEP * 2 * lanes))()  # zeros after the last pair
    for k, n in product(range(2 * _PAIRS), range(lanes)):
        panel[(k // 2 * lanes + n) * 2 + k % 2] = _bits(right[k][n])
    found = (ctypes.c_float * (3 * ROWS * lanes))()
    arguments = (ctypes.c_int64 * 3)(*(ctypes.addressof(memory) for memory in (rows, panel, found)))
    threads.run(build.load("trial", lambda: _text(machine), machine), ctypes.addressof(arguments), 1)
    got = found[ROWS * lanes : (ROWS + _ROWS) * lanes]
    columns = list(zip(*right, strict=True))
    want = [sum(a * w for a, w in zip(line, column, strict=True)) for line in left for column in columns]
    return sum(a != b for a, b in zip(got, want, strict=True))


def _text(machine: Machine) -> str:
    """The module of a product of one column, with the code that all kernels have."""
    k = Builder(machine)
    left, panel, into = (k.pointer(n) for n in range(3))
    tiles = Tiles(k, 1, k.i(_ROWS))
    k.buffer = k.at(into, k.i(ROWS * k.lanes))
    tiles.begin(k.i(0), k.i(_ROWS))
    tiles.multiply([(left, k.i(2 * _PAIRS), k.i(_PAIRS), panel)], 1, [], k.i(0), k.i(_ROWS))
    tiles.finish()
    k.b.ret_void()
    return str(k.module)


def _bits(x: int) -> int:
    """A small integer as bfloat16."""
    return int(struct.unpack("<I", struct.pack("<f", x))[0]) >> 16
