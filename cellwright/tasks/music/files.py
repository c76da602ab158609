"""Tunes out of files.

.mid .midi   one tune
.npy         a roll [T, 88], or [N, T, 88] of N tunes
.npz         such arrays by name
.json        a tune, a list of tunes, or such lists by name; a tune is a list of steps, a step a list of MIDI pitches,
             where null and -1 are a voice that rests
.mat         cells `traindata`, `validdata`, `testdata` of rolls, the files of Boulanger-Lewandowski et al. 2012
a folder     its files of these kinds, at every depth

An array may also be [T, 128]: a column per MIDI pitch. What is above 0 in an array is down, whatever its velocity.
Names that begin with train, valid (or dev) and test say what tunes are meant for.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...convert import read_npz
from ...convert.limits import first_line, framework
from ...errors import DataError
from . import midi
from .config import MusicConfig
from .keys import KEYS, Roll, roll_of

_PARTS = {"train": "train", "valid": "validation", "dev": "validation", "test": "test"}
_CELLS = ("traindata", "validdata", "testdata")
_PITCHES = 128


@dataclass(frozen=True)
class Tune:
    """`place`: for errors. `part`: train, validation or test, where the file says so. `label`: the class, or empty."""

    place: str
    roll: Roll  # [T, 88], T > 0
    part: str = ""
    label: str = ""


def tunes(path: str, config: MusicConfig, digest: Any = None) -> Iterator[Tune]:
    """The tunes of a file or folder; each file is added to `digest`. DataError: it is not what it should be."""
    place = Path(path)
    if not place.is_dir():
        if config.classes and place.suffix.lower() != ".json":
            raise DataError(f"{place} is no folder of classes; with --classes name a folder, or a .json file by class")
        yield from _file(place, config, "", digest)
        return
    files = [file for file in _walk(place) if file.suffix.lower() in SUFFIXES]
    if not files:
        raise DataError(f"{place} has no file that ends with {', '.join(SUFFIXES)}; name another folder")
    for file in files:
        inner = file.relative_to(place).parts
        if config.classes and len(inner) == 1 and file.suffix.lower() in midi.SUFFIXES:
            raise DataError(f"{file} is in no folder of a class; with --classes move it into one")
        label = (inner[0] if len(inner) > 1 else file.stem) if config.classes else ""
        yield from _file(file, config, label, digest)


def _walk(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.name.startswith("."):
            yield from _walk(entry)
        elif entry.is_file() and not entry.name.startswith("."):
            yield entry


def _file(path: Path, config: MusicConfig, label: str, digest: Any) -> Iterator[Tune]:
    suffix = path.suffix.lower()
    if suffix == ".abc":
        raise DataError(f"{path} is ABC notation, which is text: cellwright train charlm {path} learns it")
    if suffix not in SUFFIXES:
        raise DataError(f"{path} ends with {suffix!r}, expected a folder or {', '.join(SUFFIXES)}")
    if digest is not None:
        try:
            digest.update(f"\0{label}\0".encode() + path.read_bytes())
        except FileNotFoundError:
            raise DataError(f"{path} does not exist; name a file or a folder") from None
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    found = False
    for tune in _READERS[suffix](path, config):
        found = True
        if not len(tune.roll):
            raise DataError(f"{tune.place} has no steps; leave it out")
        yield Tune(tune.place, tune.roll, tune.part, label or tune.label)
    if not found:
        raise DataError(f"{path} has no tune; leave it out")


def _midi(path: Path, config: MusicConfig) -> Iterator[Tune]:
    yield Tune(str(path), midi.read(path, config.step, config.outside == "drop"))


def _npy(path: Path, config: MusicConfig) -> Iterator[Tune]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; name a file or a folder") from None
    except Exception as error:  # of numpy and Python: whatever a damaged file leads to
        raise DataError(f"{path} is no array of numbers: {first_line(error)}; numpy.save writes one") from None
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path} is no array; give a file with several of them the ending .npz")
    yield from _arrays(str(path), array, "", config)


def _npz(path: Path, config: MusicConfig) -> Iterator[Tune]:
    for name, array in read_npz(path).items():
        yield from _arrays(f"{path}, {name!r}", array, _part(name), config)


def _mat(path: Path, config: MusicConfig) -> Iterator[Tune]:
    loadmat = framework("scipy.io", "a .mat file", "'cellwright[music]'").loadmat
    try:
        held = loadmat(str(path), appendmat=False)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; name a file or a folder") from None
    except Exception as error:  # of scipy, zlib and Python: whatever a damaged file leads to
        raise DataError(f"{path} is no MATLAB file of version 5 to 7.2: {first_line(error)}") from None
    there = [name for name in _CELLS if name in held]
    if "traindata" not in there:
        names = ", ".join(name for name in held if not name.startswith("__")) or "nothing"
        raise DataError(f"{path} has {names}, expected the cells {', '.join(_CELLS)}")
    for name in there:
        if held[name].dtype != object:
            raise DataError(f"{path}, {name!r} is an array of {held[name].dtype}, expected a cell with a roll per tune")
        for n, array in enumerate(held[name].flat, 1):
            yield from _arrays(f"{path}, {name!r}, tune {n}", np.asarray(array), _part(name), config)


def _arrays(place: str, array: Any, part: str, config: MusicConfig) -> Iterator[Tune]:
    """[T, 88] or [T, 128], or several of one length."""
    shape = list(array.shape)
    if array.ndim not in (2, 3) or shape[-1] not in (KEYS, _PITCHES):
        turned = array.ndim == 2 and shape[0] in (KEYS, _PITCHES)
        mend = "transpose it" if turned else f"a column per key, or {_PITCHES} for all MIDI pitches"
        raise DataError(f"{place} has the shape {shape}, expected [T, {KEYS}]: {mend}")
    if array.dtype.kind not in "fiub":
        raise DataError(f"{place} holds {array.dtype}, expected numbers")
    for n, one in enumerate([array] if array.ndim == 2 else array, 1):
        here = place if array.ndim == 2 else f"{place}, tune {n}"
        wrong = ~(one >= 0) | (one > 127)  # NaN too
        if wrong.any():
            t, key = (int(k[0]) for k in np.nonzero(wrong))
            raise DataError(
                f"{here} has {one[t, key]} at step {t}, column {key}, expected 0, 1 or a velocity up to 127"
            )
        if one.shape[1] == KEYS:
            yield Tune(here, (one > 0).astype(np.uint8), part)
            continue
        steps, pitches = np.nonzero(one)
        notes = ((int(p), int(t), int(t) + 1) for t, p in zip(steps, pitches, strict=True))
        yield Tune(here, roll_of(notes, len(one), here, config.outside == "drop"), part)


def _json(path: Path, config: MusicConfig) -> Iterator[Tune]:
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; name a file or a folder") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {first_line(error)}") from None
    for name, held in data.items() if isinstance(data, dict) else [("", data)]:
        part = _part(name)
        if config.classes and (part or not name):
            raise DataError(f"{path} has no classes: with --classes it is lists of tunes by the name of their class")
        place = f"{path}, {name!r}" if name else str(path)
        if not isinstance(held, list):
            raise DataError(f"{place} is a {type(held).__name__}, expected a list of tunes")
        several = any(isinstance(step, list) and any(isinstance(v, list) for v in step) for step in held)
        for n, tune in enumerate(held if several else [held] if held else [], 1):
            here = f"{place}, tune {n}" if several else place
            yield Tune(here, _listed(tune, here, config), part, name if config.classes else "")


def _listed(tune: Any, place: str, config: MusicConfig) -> Roll:
    """A list of steps of pitches."""
    if not isinstance(tune, list):
        raise DataError(f"{place} is a {type(tune).__name__}, expected a list of steps")
    notes = []
    for t, step in enumerate(tune):
        if not isinstance(step, list):
            raise DataError(f"{place}, step {t} is {step!r:.40}, expected a list of MIDI pitches")
        for pitch in step:
            if pitch is None or pitch == -1:
                continue
            if isinstance(pitch, bool) or not isinstance(pitch, (int, float)) or not 0 <= pitch < _PITCHES or pitch % 1:
                raise DataError(f"{place}, step {t} has {pitch!r:.40}, expected a MIDI pitch from 0 to 127, null or -1")
            notes.append((int(pitch), t, t + 1))
    return roll_of(notes, len(tune), place, config.outside == "drop")


def _part(name: str) -> str:
    return next((part for begin, part in _PARTS.items() if name.lower().startswith(begin)), "")


_READERS: dict[str, Callable[[Path, MusicConfig], Iterator[Tune]]] = {
    ".mid": _midi,
    ".midi": _midi,
    ".npy": _npy,
    ".npz": _npz,
    ".json": _json,
    ".mat": _mat,
}
SUFFIXES = tuple(_READERS)
