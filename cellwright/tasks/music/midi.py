"""MIDI files, in and out, through mido, which is an extra.

Time is counted in notes, not in seconds: the tempo of a file changes nothing. A note lasts one step at least. Channel
10 has drums, which are left out, and so is the silence before the first note.
"""

from fractions import Fraction
from pathlib import Path
from typing import Any

from ...convert.limits import first_line, framework
from ...errors import DataError
from .keys import Roll, notes_of, roll_of

SUFFIXES = (".mid", ".midi")
_DRUMS = 9  # channel 10, counted from 0
_TICKS = 480  # per quarter note, in files that are written
_LONGEST = 2**20  # steps of a tune: more is a damaged file


def check() -> Any:
    """mido. TargetError: it is not installed."""
    return framework("mido", "a MIDI file", "'cellwright[music]'")


def read(path: Path, step: str, drop: bool) -> Roll:
    """The roll [T, 88] of a file. `step`: in whole notes, as "1/8". DataError: absent, damaged, or without notes."""
    mido = check()
    try:
        file = mido.MidiFile(path, clip=True)
        ticks = file.ticks_per_beat
        tracks = [[message for message in track if not message.is_meta] for track in file.tracks]
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; name a MIDI file or a folder") from None
    except Exception as error:  # of mido and Python: whatever a damaged file leads to
        raise DataError(
            f"{path} is no MIDI file, or a damaged one: {first_line(error)}; leave it out, or write it again"
        ) from None
    if not 0 < ticks < 2**15:
        raise DataError(f"{path} counts time in frames of a film, not in notes; save it again with a musical time base")
    notes = _rounded([note for track in tracks for note in _notes(track)], ticks * 4 * Fraction(step))
    if not notes:
        raise DataError(f"{path} has no notes (drums do not count); leave it out")
    begin, end = min(note[1] for note in notes), max(note[2] for note in notes)
    if end - begin > _LONGEST:
        raise DataError(f"{path} is {end - begin:,} steps long, expected {_LONGEST:,} at most: it is damaged")
    return roll_of(((p, a - begin, b - begin) for p, a, b in notes), end - begin, str(path), drop)


def _notes(track: list[Any]) -> list[tuple[int, int, int]]:
    """Pitch, first tick and last tick of each note; one that never ends ends with the track."""
    found, now = [], 0
    sounding: dict[tuple[int, int], int] = {}
    for message in track:
        now += message.time
        if message.type not in ("note_on", "note_off") or message.channel == _DRUMS:
            continue
        key = (message.channel, message.note)
        if key in sounding:  # also one that is struck again before it ends
            found.append((message.note, sounding.pop(key), now))
        if message.type == "note_on" and message.velocity:
            sounding[key] = now
    return found + [(pitch, begin, now) for (_, pitch), begin in sounding.items()]


def _rounded(notes: list[tuple[int, int, int]], ticks: Fraction) -> list[tuple[int, int, int]]:
    """Ticks to steps of `ticks` each, to the nearest one."""
    found = []
    for pitch, begin, end in notes:
        first = int(begin / ticks + Fraction(1, 2))
        found.append((pitch, first, max(first + 1, int(end / ticks + Fraction(1, 2)))))
    return found


def write(roll: Roll, path: Path, step: str, tempo: float) -> None:
    """A roll [T, 88] as a MIDI file with one track, at `tempo` quarter notes per minute.

    A key that is down in steps that follow each other is one long note: a roll does not say more.
    """
    mido = check()
    ticks = int(_TICKS * 4 * Fraction(step))
    events = [(end * ticks, 0, pitch) for pitch, _, end in notes_of(roll)]
    events += [(first * ticks, 80, pitch) for pitch, first, _ in notes_of(roll)]
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(tempo))])
    now = 0
    for tick, velocity, pitch in sorted(events):
        kind = "note_on" if velocity else "note_off"
        track.append(mido.Message(kind, note=pitch, velocity=velocity, time=tick - now))
        now = tick
    track.append(mido.MetaMessage("end_of_track", time=len(roll) * ticks - now))
    file = mido.MidiFile(type=0, ticks_per_beat=_TICKS)
    file.tracks.append(track)
    file.save(path)
