"""Tunes out of a net: one step after the other, to the terminal and to files."""

import json
import math
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from ...errors import DataError, OptionError
from . import midi, sound
from .keys import KEYS, LOWEST, Roll, names_in
from .net import Net

LENGTH = 64
_LONGEST = 100_000  # steps
_SUFFIXES = (*midi.SUFFIXES, ".wav", ".json")
_TEMPO = (10.0, 1000.0)


def check(length: int, temperature: float, tempo: float, out: Sequence[Path], prompt_steps: int | None) -> None:
    """OptionError: a value that is not possible, or a file that is there or cannot be written as it is called."""
    if not 0 <= length <= _LONGEST:
        raise OptionError(f"--length {length}: a tune has 0 to {_LONGEST:,} steps")
    if not 0 <= temperature < math.inf:
        raise OptionError(
            f"--temperature {temperature}: a number from 0 (what is more probable of each key) upwards is expected"
        )
    if not _TEMPO[0] <= tempo <= _TEMPO[1]:
        raise OptionError(f"--tempo {tempo:g}: {_TEMPO[0]:g} to {_TEMPO[1]:g} quarter notes per minute are expected")
    if prompt_steps is not None and prompt_steps < 1:
        raise OptionError(f"--prompt-steps {prompt_steps}: 1 or more are expected; leave it away for the whole tune")
    for file in out:
        if file.suffix.lower() not in _SUFFIXES:
            raise OptionError(f"--out {file}: expected a name that ends with {', '.join(_SUFFIXES)}")
        if file.exists():
            raise OptionError(f"--out {file} exists; name another file")
        if not file.absolute().parent.is_dir():
            raise OptionError(f"--out {file}: there is no folder {file.parent}; make it first")
        if file.suffix.lower() in midi.SUFFIXES:
            midi.check()


@torch.inference_mode()
def compose(
    net: Net, length: int, *, temperature: float = 1.0, seed: int, label: int | None = None, prompt: Roll | None = None
) -> Iterator[Roll]:
    """`length` steps [88] that follow a prompt [P, 88], or a beginning; the model is put into evaluation mode.

    Each key is drawn by itself, with sigmoid(logit / temperature); temperature 0: it is down where that is above 0.5.
    DataError: the logits are not numbers.
    """
    net.model.eval()
    generator = torch.Generator().manual_seed(seed)
    given = np.zeros((0, KEYS), np.uint8) if prompt is None else prompt
    x = torch.from_numpy(np.concatenate([np.zeros((1, KEYS), np.uint8), given])).float().unsqueeze(1)  # [P + 1, 1, 88]
    kind = None if label is None else torch.tensor([label])
    state = None
    for _ in range(length):
        logits, state = net.model(x, kind, state)
        last = logits[-1, 0].double()
        if not last.isfinite().all():
            raise DataError("the model's logits are not numbers (NaN): the weights of this run are of no use")
        chance = torch.rand(KEYS, generator=generator, dtype=torch.float64)
        down = last > 0 if temperature == 0 else chance < (last / temperature).sigmoid()
        x = down.float().expand(1, 1, KEYS)
        yield down.numpy().astype(np.uint8)


def lines(steps: Iterator[Roll], prompt: Roll, out: Sequence[Path], step: str, tempo: float) -> Iterator[str]:
    """A line per step with the names of its keys; after the last one the files are written."""
    rows = []
    for n, row in enumerate(chain(prompt, steps), 1):
        rows.append(row)
        yield f"{n:5}  {names_in(row)}\n"
    roll = np.stack(rows) if rows else np.zeros((0, KEYS), np.uint8)
    for file in out:
        write(roll, file, step, tempo)
        yield f"written: {file}\n"


def write(roll: Roll, file: Path, step: str, tempo: float) -> None:
    """A roll [T, 88] in the format that the name of a file says."""
    suffix = file.suffix.lower()
    if suffix == ".json":
        pitches = [(np.flatnonzero(row) + LOWEST).tolist() for row in roll]
        file.write_text(json.dumps(pitches) + "\n", encoding="utf-8")
    elif suffix == ".wav":
        sound.write(roll, file, step, tempo)
    else:
        midi.write(roll, file, step, tempo)
