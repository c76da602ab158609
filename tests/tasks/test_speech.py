"""The parts of speech: sound files, frames, changes by chance, and CTC, each beside a plain formulation."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cellwright.errors import DataError
from cellwright.tasks.labels.dataset import IGNORE, Batch
from cellwright.tasks.speech import batches, ctc
from cellwright.tasks.speech.features import FLOOR, LogMel

soundfile = pytest.importorskip("soundfile", reason="sound is read by soundfile; pip install 'cellwright[speech]'")
pytest.importorskip("soxr", reason="other rates need soxr; pip install 'cellwright[speech]'")

from cellwright.tasks.speech.audio import Audio  # noqa: E402
from cellwright.tasks.speech.net import SpeechTask  # noqa: E402


def tone(hertz: float, seconds: float, rate: int, level: float = 0.5) -> Any:
    return level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def whole(path: Path, rate: int) -> Any:
    return np.concatenate(list(Audio(path).blocks(rate)))


@pytest.mark.parametrize(
    ("subtype", "error"),
    [("PCM_U8", 2**-7), ("PCM_16", 2**-15), ("PCM_24", 2**-23), ("PCM_32", 2**-23), ("FLOAT", 0), ("DOUBLE", 2**-24)],
)
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_every_format_is_the_mean_of_its_channels(subtype: str, error: float, channels: int, tmp_path: Path) -> None:
    wave = np.random.default_rng(1).uniform(-0.9, 0.9, (777, channels)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", wave, 8000, subtype)
    found = whole(tmp_path / "a.wav", 8000)
    assert found.dtype == np.float32
    assert np.abs(found - wave.mean(1)).max() <= error + 1e-7


@pytest.mark.parametrize(("rate", "wanted"), [(16000, 8000), (44100, 8000), (8000, 16000), (11025, 8000)])
def test_another_rate_is_the_same_sound(rate: int, wanted: int, tmp_path: Path) -> None:
    """Longer than a block, so that the pieces must fit."""
    seconds = 2.5 * 2**18 / rate
    soundfile.write(tmp_path / "a.wav", tone(440, seconds, rate), rate, "FLOAT")
    found, want = whole(tmp_path / "a.wav", wanted), tone(440, seconds, wanted)
    assert abs(len(found) - len(want)) <= 1
    middle = slice(400, min(len(found), len(want)) - 400)  # the filter has no past and no future at the ends
    assert np.abs(found[middle] - want[middle]).max() < 2e-3


def bad(name: str, change: Callable[[bytes], bytes], words: tuple[str, ...]) -> Any:
    return pytest.param(change, words, id=name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        bad("empty", lambda b: b"", ("is empty: 0 bytes",)),
        bad("no sound", lambda b: b[:40] + bytes(4), ("has no sound",)),
        bad("half", lambda b: b[: len(b) // 2], ("truncated", "it announces 1600 bytes")),
        bad("one byte less", lambda b: b[:-1], ("truncated", "and has 1599")),
        bad("head only", lambda b: b[:20], ("not a recording that can be read",)),
        bad("noise", lambda b: bytes(range(256)) * 4, ("not a recording that can be read",)),
        bad("text", lambda b: b"zero\n" * 100, ("not a recording that can be read",)),
        bad("no rate", lambda b: b[:24] + bytes(4) + b[28:], ("a.wav",)),
        bad("slow", lambda b: b[:24] + b"\x64\0\0\0" + b[28:], ("100 samples per second",)),
    ],
)
def test_what_is_broken_is_named(change: Callable[[bytes], bytes], words: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(440, 0.1, 8000), 8000, "PCM_16")
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError) as caught:
        whole(path, 8000)
    assert all(word in str(caught.value) for word in ("a.wav", *words)), caught.value


def test_samples_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.array([0.0, np.nan, 0.1] * 300), 8000, "FLOAT")
    with pytest.raises(DataError, match=r"a\.wav has samples that are not finite"):
        whole(tmp_path / "a.wav", 8000)
    with pytest.raises(DataError, match=r"no\.wav does not exist"):
        Audio(tmp_path / "no.wav")


def test_a_length_that_was_not_known_is_no_truncation(tmp_path: Path) -> None:
    """Programs that write into a pipe announce the largest size."""
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(440, 0.1, 8000), 8000, "PCM_16")
    raw = path.read_bytes()
    path.write_bytes(raw[:4] + b"\xff" * 4 + raw[8:40] + b"\xff" * 4 + raw[44:])
    assert len(whole(path, 8000)) == 800


def mels_by_hand(samples: Any, rate: int, mels: int, points: int) -> Any:
    """The formulas as they are written, with loops, in float64."""
    size, hop = round(0.025 * rate), round(0.01 * rate)
    to_mel = lambda f: 2595 * math.log10(1 + f / 700)  # noqa: E731
    edges = [to_mel(rate / 2) * m / (mels + 1) for m in range(mels + 2)]
    rows = []
    for begin in range(0, len(samples) - size + 1, hop):
        n = np.arange(size)
        frame = samples[begin : begin + size] * (0.5 - 0.5 * np.cos(2 * np.pi * n / size))
        row = np.full(mels, FLOOR)
        for k in range(points // 2 + 1):
            energy = abs((frame * np.exp(-2j * np.pi * k * n / points)).sum()) ** 2
            place = to_mel(k * rate / points)
            for m in range(mels):
                low, top, high = edges[m : m + 3]
                weight = min((place - low) / (top - low), (high - place) / (high - top))
                row[m] += max(0.0, weight) * energy
        rows.append(np.log(row))
    return np.array(rows)


@pytest.mark.parametrize(("rate", "mels", "points"), [(8000, 10, 256), (4410, 7, 128)])
def test_frames_are_the_formula(rate: int, mels: int, points: int) -> None:
    samples = np.random.default_rng(2).normal(0, 0.1, round(0.061 * rate))
    found = LogMel(rate, mels)([samples.astype(np.float32)])
    want = mels_by_hand(samples, rate, mels, points)
    assert found.shape == want.shape == (4, mels)
    assert np.abs(found - want).max() < 1e-4


def test_frames_do_not_depend_on_the_blocks() -> None:
    samples = np.random.default_rng(3).normal(0, 0.1, 5003).astype(np.float32)
    want = LogMel(8000, 40)([samples])
    for size in (1, 79, 200, 1001):
        cut = [samples[k : k + size] for k in range(0, len(samples), size)]
        assert np.abs(LogMel(8000, 40)(cut) - want).max() < 1e-5
    assert LogMel(8000, 40)([samples[:7]]).shape == (1, 40)  # shorter than a frame
    assert LogMel(8000, 200)([samples]).min() > math.log(FLOOR) + 1e-3  # filters narrower than a bin hear all the same


def test_a_tone_is_heard_in_its_filter() -> None:
    for hertz in (300, 1000, 3000):
        found = LogMel(8000, 40)([tone(hertz, 0.2, 8000).astype(np.float32)]).mean(0)
        place = 2595 * math.log10(1 + hertz / 700) / (2595 * math.log10(1 + 4000 / 700)) * 41
        assert abs(int(found.argmax()) + 1 - place) <= 0.75


LENGTHS = np.array([9, 1, 5])


def some(seed: int = 0) -> Any:
    x = np.random.default_rng(seed).normal(2, 3, (9, 3, 4)).astype(np.float32)
    for b, length in enumerate(LENGTHS):
        x[length:, b] = 0
    return x


def test_each_recording_is_normalised_by_itself() -> None:
    x = some()
    found = batches.normalised(x, LENGTHS)
    for b in (0, 2):
        own = x[: LENGTHS[b], b]
        assert np.abs(found[: LENGTHS[b], b] - (own - own.mean(0)) / own.std(0)).max() < 1e-4
    assert (found[0, 1] == 0).all()  # one frame is its own mean


def test_deltas_and_stacks() -> None:
    x = some()
    found = batches.deltas(x, LENGTHS)
    for b, length in enumerate(LENGTHS):
        own = np.pad(x[:length, b], ((2, 2), (0, 0)), mode="edge")
        want = sum(k * (own[2 + k : 2 + k + length] - own[2 - k : 2 - k + length]) for k in (1, 2)) / 10
        assert np.abs(found[:length, b] - want).max() < 1e-5
        assert (found[length:, b] == 0).all()
    tall = batches.stacked(x, 2)
    assert tall.shape == (5, 3, 8)
    for t, k, b in itertools.product(range(5), range(2), range(3)):
        row = x[2 * t + k, b] if 2 * t + k < 9 else np.zeros(4)
        assert (tall[t, b, 4 * k : 4 * k + 4] == row).all()


def test_slower_and_faster_keeps_the_ends_and_the_fewest_frames() -> None:
    x = np.zeros((9, 3, 1), np.float32)
    for b, length in enumerate(LENGTHS):
        x[:length, b, 0] = np.linspace(1, 2, length) if length > 1 else 1
    seen = set()
    for seed in range(40):
        fewest = np.array([8, 1, 5])
        found, lengths = batches.stretched(x, LENGTHS, 0.4, 2, fewest, np.random.default_rng(seed))
        seen.add(int(lengths[0]))
        for b, length in enumerate(lengths):
            own = found[:length, b, 0]
            assert fewest[b] <= length <= round(1.4 * LENGTHS[b]) + 2
            ahead = int((own == 1).sum()) - 1
            assert b == 1 or ahead <= 2
            want = np.linspace(1, 2, length - ahead) if LENGTHS[b] > 1 else np.ones(length - ahead)
            assert np.abs(own[ahead:] - want).max() < 1e-5
    assert len(seen) > 4


def test_masks_hide_bands_and_spans_inside_the_recording() -> None:
    hidden = []
    for seed in range(50):
        x = np.ones((20, 2, 10), np.float32)
        batches.hide(x, np.array([20, 10]), 1, 0.3, 0.2, np.random.default_rng(seed))
        for b, length in ((0, 20), (1, 10)):
            bands, spans = (x[:length, b] == 0).all(0), (x[:, b] == 0).all(1)
            assert bands.sum() <= 3 and spans.sum() <= 0.2 * length
            assert (x[length:, b, ~bands] == 1).all()
            assert ((x[:, b] == 0) == (bands[None] | spans[:, None])).all()
            hidden.append((int(bands.sum()), int(spans.sum())))
    assert {n for n, _ in hidden} == {0, 1, 2, 3} and len({n for _, n in hidden}) == 5


def test_noise_and_gain_are_in_decibels() -> None:
    x = np.full((3, 200, 2), -9.0, np.float32)
    louder = batches.louder(x, 6, 0, np.random.default_rng(0)) - x
    assert 0.9 * 6 < louder.max() / (math.log(10) / 10) <= 6.001 and louder.min() < -1
    assert (louder == louder[:1, :, :1]).all()
    silence = np.full((3, 200, 2), math.log(FLOOR), np.float32)
    noisy = batches.louder(silence, 0, 30, np.random.default_rng(0)) - silence
    assert noisy.min() > 0.6 and 25 < noisy.max() / (math.log(10) / 10) < 31


def scores(T: int, K: int, seed: int, sharp: float = 1.5) -> Any:
    x = np.random.default_rng(seed).normal(0, sharp, (T, K))
    return x - np.log(np.exp(x).sum(1, keepdims=True))


def text_of(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(k for k, _ in itertools.groupby(path) if k)


def all_texts(x: Any) -> dict[tuple[int, ...], float]:
    """The probability of each text as the sum over all K^T paths."""
    found: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(x.shape[1]), repeat=len(x)):
        p = math.exp(sum(x[t, k] for t, k in enumerate(path)))
        found[text_of(path)] = found.get(text_of(path), 0.0) + p
    return found


@pytest.mark.parametrize("seed", range(12))
def test_ctc_beside_all_paths(seed: int) -> None:
    x = scores(6, 3, seed)
    texts = all_texts(x)
    best = max(texts, key=lambda text: texts[text])
    assert tuple(ctc.beam(x, 100)) == best
    assert sum(texts.values()) == pytest.approx(1)
    for text in (best, (), (1, 1), (2, 1, 2)):
        assert ctc.nats(x, text) == pytest.approx(-math.log(texts[text]), rel=1e-6)
    assert tuple(ctc.best_path(x)) == text_of(tuple(x.argmax(1)))
    for text in ((1, 1, 2), (2,), (1, 2, 1), (1, 1, 1)):
        paths = [p for p in itertools.product(range(3), repeat=6) if text_of(p) == text]
        likely = max(paths, key=lambda p: sum(x[t, k] for t, k in enumerate(p)))
        groups = [(k, len(list(g))) for k, g in itertools.groupby(likely)]
        ends = list(itertools.accumulate(size for _, size in groups))
        spans = [(end - size, end - 1) for (k, size), end in zip(groups, ends, strict=True) if k]
        assert ctc.align(x, text) == spans


def test_the_loss_of_a_batch_is_per_symbol() -> None:
    x = [scores(6, 3, 20), scores(4, 3, 21)]
    logits = torch.randn(6, 2, 3, dtype=torch.float64)  # what is after the end does not count
    for b, one in enumerate(x):
        logits[: len(one), b] = torch.from_numpy(one + b)  # a shift of all logits changes nothing
    task = SpeechTask.__new__(SpeechTask)
    task._text, task.model = True, lambda batch: logits  # type: ignore[assignment]
    batch = Batch(torch.empty(0), torch.tensor([6, 4]), torch.tensor([[1, 2], [1, IGNORE]]))
    want = -math.log(all_texts(x[0])[(1, 1)]) - math.log(all_texts(x[1])[(2,)])
    assert float(task.criterion(batch, 0)) == pytest.approx(want / 3, rel=1e-9)


def test_a_wide_beam_finds_what_the_best_path_misses() -> None:
    x = np.log(np.array([[0.6, 0.4], [0.6, 0.4]]))  # the path without a symbol has 0.36, "a" has 0.64
    assert ctc.best_path(x) == []
    assert ctc.beam(x, 4) == [1]


def test_a_text_that_does_not_fit() -> None:
    assert ctc.steps_needed([1, 1, 2]) == 4
    assert ctc.nats(scores(3, 3, 0), [1, 1, 2]) == math.inf
    assert math.isfinite(ctc.nats(scores(4, 3, 0), [1, 1, 2]))
    with pytest.raises(ValueError, match="3 symbols do not fit into 3 steps"):
        ctc.align(scores(3, 3, 0), [1, 1, 2])
    assert ctc.align(scores(4, 3, 0), [1, 1, 2]) == [(0, 0), (2, 2), (3, 3)]
    assert ctc.align(scores(3, 3, 0), []) == []
