"""The 88 keys of a piano, and tunes as rolls of them.

A roll is uint8 [T, 88]: 1 where a key is down in a step, column 0 for A0 (MIDI pitch 21) to column 87 for C8 (108).
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError

KEYS = 88
LOWEST = 21  # MIDI pitch of the lowest key
MIDDLE = 60 - LOWEST  # column of C4
Roll = NDArray[np.uint8]
_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


def name_of(pitch: int) -> str:
    """60 is C4."""
    return f"{_NAMES[pitch % 12]}{pitch // 12 - 1}"


def names_in(step: NDArray[Any]) -> str:
    """The keys that are down in a step [88], from the lowest on; `-`: none."""
    return " ".join(name_of(int(k) + LOWEST) for k in np.flatnonzero(step)) or "-"


def roll_of(notes: Iterable[tuple[int, int, int]], steps: int, place: str, drop: bool) -> Roll:
    """Notes (pitch, first step, step after the last one) as a roll of `steps`.

    `drop` leaves out notes outside the 88 keys. DataError: there are such notes, and they are not to be left out.
    """
    roll = np.zeros((steps, KEYS), np.uint8)
    for pitch, first, end in notes:
        key = pitch - LOWEST
        if 0 <= key < KEYS:
            roll[first:end, key] = 1
        elif not drop:
            raise DataError(
                f"{place} has the note {pitch} ({name_of(pitch)}) at step {first}, outside the 88 keys from {LOWEST} "
                f"({name_of(LOWEST)}) to {LOWEST + KEYS - 1} ({name_of(LOWEST + KEYS - 1)}); transpose it, or leave "
                f"such notes out with --outside drop"
            )
    return roll


def notes_of(roll: Roll) -> list[tuple[int, int, int]]:
    """The notes of a roll, as `roll_of` takes them, by their first step: a key that stays down is one note."""
    edges = np.diff(np.pad(roll.astype(np.int8), ((1, 1), (0, 0))), axis=0)  # [T + 1, 88]
    found = []
    for key in range(KEYS):
        starts, ends = np.flatnonzero(edges[:, key] > 0), np.flatnonzero(edges[:, key] < 0)
        found += [(key + LOWEST, int(a), int(b)) for a, b in zip(starts, ends, strict=True)]
    return sorted(found, key=lambda note: note[1:2] + note[:1])
