"""A roll as sound: each key a tone with a few partials that die away, mixed into 16 bits at 22,050 Hz."""

import wave
from fractions import Fraction
from pathlib import Path

import numpy as np

from .keys import Roll, notes_of

RATE = 22_050  # Hz
_PARTIALS = (1.0, 0.5, 0.25, 0.12)  # loudness of the tone's multiples
_DECAY = 1.5  # seconds until a tone has 1/e of its loudness
_RAMP = 0.008  # seconds to come and to go, so that nothing clicks


def write(roll: Roll, path: Path, step: str, tempo: float) -> None:
    """A roll [T, 88] as a mono WAV file, at `tempo` quarter notes per minute."""
    seconds = float(4 * Fraction(step)) * 60 / tempo  # of a step
    sound = np.zeros(int(len(roll) * seconds * RATE) + RATE // 2, np.float32)  # half a second to die away
    for pitch, first, end in notes_of(roll):
        begin = int(first * seconds * RATE)
        tone = _tone(440.0 * 2 ** ((pitch - 69) / 12), int((end - first) * seconds * RATE))
        sound[begin : begin + len(tone)] += tone
    peak = float(np.abs(sound).max(initial=0.0))
    samples = (sound * (0.9 * 32767 / peak if peak else 0.0)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())


def _tone(frequency: float, samples: int) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
    """[samples] of one note."""
    t = np.arange(samples) / RATE
    waves = [
        loud * np.sin(2 * np.pi * frequency * n * t)
        for n, loud in enumerate(_PARTIALS, 1)
        if frequency * n < RATE / 2  # above that it would come back as another tone
    ]
    edge = np.minimum(t, t[::-1]) / _RAMP
    return (sum(waves, np.zeros(samples)) * np.exp(-t / _DECAY) * np.minimum(edge, 1)).astype(np.float32)
