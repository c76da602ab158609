"""Rolls, files and the net of `music`, each beside something simpler."""

import json
import struct
import wave
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cellwright import DataError
from cellwright.tasks.music import sound
from cellwright.tasks.music.config import MusicConfig
from cellwright.tasks.music.files import Tune, tunes
from cellwright.tasks.music.job import MusicJob
from cellwright.tasks.music.keys import KEYS, LOWEST, Roll, names_in, notes_of, roll_of
from cellwright.tasks.music.net import WITHOUT_FIRST, MusicTask, Net, judge
from cellwright.tasks.music.rolls import TEST, TRAINING, VALIDATION, Rolls, moved
from cellwright.tasks.music.write import compose

JOB = MusicJob()
needs_mido = pytest.mark.skipif(find_spec("mido") is None, reason="mido is not here: pip install 'cellwright[music]'")
needs_scipy = pytest.mark.skipif(
    find_spec("scipy") is None, reason="scipy is not here: pip install 'cellwright[music]'"
)


def rolls(count: int, seed: int = 0, low: int = 20, high: int = 60) -> list[Roll]:
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        roll = np.zeros((draw.integers(1, 12), KEYS), np.uint8)
        roll[:, low:high] = draw.random((len(roll), high - low)) < 0.1
        found.append(roll)
    return found


def dataset(found: list[Roll], parts: list[int], labels: list[str] | None = None) -> Rolls:
    data = Rolls()
    for n, (roll, part) in enumerate(zip(found, parts, strict=True)):
        data.add(Tune(f"tune {n}", roll, label=labels[n] if labels else ""), part)
    return data.close()


def net_for(config: MusicConfig, data: Rolls) -> Net:
    torch.manual_seed(5)
    return JOB.build(config, JOB.learn(config, data))


def nats_by_hand(net: Net, roll: Roll, label: int | None) -> list[float]:
    """Step by step with torch.nn.LSTMCell, key by key with the formula of the Bernoulli distribution."""
    layer = net.model.topology.recurrent
    cell = nn.LSTMCell(layer.input_size, layer.hidden_size)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in layer.state_dict().items()})
    last = net.model.topology.output[-1]  # type: ignore[index]
    before, state, found = torch.zeros(KEYS), None, []
    for row in torch.from_numpy(roll).float():
        x = before if label is None else torch.cat([before, torch.eye(len(net.classes))[label]])
        state = cell(x[None], state)
        p = torch.sigmoid(last(state[0])[0]).double()
        found.append(-sum(float(torch.log(p[k] if row[k] else 1 - p[k])) for k in range(KEYS)))
        before = row
    return found


@pytest.mark.parametrize("classes", [False, True])
def test_nll_is_that_of_a_loop_by_hand(classes: bool) -> None:
    found = rolls(5)
    labels = ["jig", "reel", "jig", "reel", "jig"]
    data = dataset(found, [TRAINING, TRAINING, VALIDATION, TEST, TRAINING], labels if classes else None)
    config = MusicConfig(hidden=7, classes=classes)
    net = net_for(config, data)
    with torch.no_grad():
        want = [nats_by_hand(net, r, int(k == "reel") if classes else None) for r, k in zip(found, labels, strict=True)]
    got = judge(net, data, np.arange(5)).measured
    steps = sum(map(len, want))
    assert got["loss"] == pytest.approx(sum(map(sum, want)) / steps, rel=1e-5)
    assert got[WITHOUT_FIRST] == pytest.approx(sum(sum(one[1:]) for one in want) / (steps - 5), rel=1e-5)
    if classes:
        other = dataset(found, [TEST] * 5, ["reel", "jig", "reel", "jig", "reel"])
        assert abs(judge(net, other, np.arange(5)).measured["loss"] - got["loss"]) > 1e-4, "the class is not heard"


def test_accuracy_counts_keys_in_valid_steps_only() -> None:
    data = dataset(rolls(4), [TRAINING, VALIDATION, TRAINING, TRAINING])
    net = net_for(MusicConfig(hidden=3), data)
    for p in net.model.parameters():
        p.detach().zero_()
    with torch.no_grad():
        net.model.topology.output[-1].bias[30:40] = 1.0  # type: ignore[index]
    whole = np.concatenate([data.keys[i] for i in range(4)])
    right = whole[:, 30:40].sum()
    guessed_or_there = 10 * len(whole) + whole.sum() - right
    assert judge(net, data, np.arange(4)).measured["accuracy"] == pytest.approx(right / guessed_or_there)


def test_the_loss_of_a_batch_is_the_mean_over_its_valid_steps() -> None:
    found = rolls(6, seed=3)
    config = MusicConfig(hidden=4, batch=4, dropout=0.0, recurrent_dropout=0.0)
    data = dataset(found, [TRAINING] * 5 + [VALIDATION])
    net = net_for(config, data)
    task = MusicTask(config, net, data)
    for step in range(4):
        chosen = task.order(step)
        with torch.no_grad():
            want = [n for i in chosen for n in nats_by_hand(net, found[i], None)]
        assert task.loss(step).item() == pytest.approx(sum(want) / len(want), rel=1e-5)


def test_windows_have_each_step_once_with_the_step_before_it() -> None:
    found = rolls(3, seed=1)
    found[1] = np.concatenate([found[1], *rolls(4, seed=2)])
    data = dataset(found, [TRAINING, TRAINING, VALIDATION])
    which, starts, sizes = data.windows(data.part(TRAINING), 5)
    assert sizes.max() == 5 and sizes.sum() == len(found[0]) + len(found[1])
    x, keys, lengths, _ = data.batch(which, starts, sizes)
    seen: dict[int, list[Any]] = {0: [], 1: []}
    for b, (i, start, size) in enumerate(zip(which, starts, sizes, strict=True)):
        before = np.concatenate([np.zeros((1, KEYS)), found[i]])[start : start + size]
        assert (x[:size, b].numpy() == before).all() and not x[size:, b].any()
        assert lengths[b] == size and not keys[size:, b].any()
        seen[i].append(keys[:size, b].numpy())
    assert all((np.concatenate(seen[i]) == found[i]).all() for i in (0, 1))
    assert data.windows(data.part(TRAINING), 0)[2].tolist() == [len(found[0]), len(found[1])]


@pytest.mark.parametrize("by", [-11, -1, 0, 3, 11])
def test_a_tune_is_moved_as_a_whole_and_stays_on_the_piano(by: int) -> None:
    (roll,) = rolls(1, low=30, high=50)
    roll[0, 30] = roll[0, 49] = 1
    assert notes_of(moved(roll, by)) == sorted(
        ((p + by, a, b) for p, a, b in notes_of(roll)), key=lambda n: (n[1], n[0])
    )
    (edge,) = rolls(1, low=0, high=4)
    edge[0, 0] = edge[0, 3] = 1
    assert (moved(edge, -5) == edge).all()
    assert not moved(np.zeros((3, KEYS), np.uint8), by).any()


def test_transposing_depends_on_the_seed_and_the_step_only() -> None:
    config = MusicConfig(hidden=4, batch=2, dropout=0.0, recurrent_dropout=0.0, transpose=3)
    data = dataset(rolls(6), [TRAINING] * 5 + [VALIDATION])
    net = net_for(config, data)
    first = [MusicTask(config, net, data).loss(step).item() for step in (0, 1, 2)]
    assert [MusicTask(config, net, data).loss(step).item() for step in (2, 1, 0)][::-1] == first
    plain = MusicTask(config.changed(transpose=0), net, data)
    assert sum(plain.loss(step).item() != loss for step, loss in enumerate(first)) >= 2  # a shift may be zero


def test_notes_and_rolls() -> None:
    for roll in rolls(20):
        assert (roll_of(notes_of(roll), len(roll), "", False) == roll).all()
    roll = roll_of([(60, 0, 2), (64, 1, 2)], 3, "", False)
    assert [names_in(row) for row in roll] == ["C4", "C4 E4", "-"]
    assert roll[:, 60 - 21].tolist() == [1, 1, 0]
    with pytest.raises(DataError, match=r"t.mid has the note 20 \(G#0\) at step 1.*--outside drop"):
        roll_of([(20, 1, 2)], 3, "t.mid", False)
    assert not roll_of([(20, 1, 2), (109, 0, 1)], 3, "", True).any()


def midi(tracks: list[list[tuple[int, bytes]]], division: int) -> bytes:
    """A MIDI file from ticks and messages, written after the standard by nothing that reads it."""
    held = b"MThd" + struct.pack(">IHHH", 6, 1, len(tracks), division)
    for track in tracks:
        data = b""
        for ticks, message in [*track, (0, b"\xff\x2f\x00")]:
            bits = [ticks & 127]
            while ticks := ticks >> 7:
                bits.insert(0, 128 | ticks & 127)
            data += bytes(bits) + message
        held += b"MTrk" + struct.pack(">I", len(data)) + data
    return held


def notes(scale: int) -> list[tuple[int, bytes]]:
    """With 96 * scale ticks per quarter note."""
    return [
        (96 * scale, b"\x90\x3c\x40"),  # C4, after a quarter that is left out
        (0, b"\x40\x40"),  # and E4: running status
        (48 * scale, b"\x80\x40\x00"),  # which ends after an eighth
        (48 * scale, b"\x90\x3c\x00"),  # as C4 does after a quarter: velocity 0
        (0, b"\x43\x40"),  # G4
        (2 * scale, b"\x43\x40"),  # is struck again at once
        (44 * scale, b"\x80\x43\x00"),  # and ends a little before an eighth is over
    ]


@needs_mido
def test_midi_is_read_in_notes(tmp_path: Path) -> None:
    tempo_and_drum = [(0, b"\xff\x51\x03\x01\x00\x00"), (0, b"\x99\x24\x40"), (9, b"\x89\x24\x00")]
    file = tmp_path / "a.mid"
    for scale in (1, 10):
        file.write_bytes(midi([tempo_and_drum, notes(scale)], 96 * scale))
        (tune,) = tunes(str(file), MusicConfig())
        assert [names_in(row) for row in tune.roll] == ["C4 E4", "C4", "G4"]
    (tune,) = tunes(str(file), MusicConfig(step="1/4"))
    assert [names_in(row) for row in tune.roll] == ["C4 E4", "G4"]
    (tune,) = tunes(str(file), MusicConfig(step="1/16"))
    assert [names_in(row) for row in tune.roll] == ["C4 E4", "C4 E4", "C4", "C4", "G4", "G4"]


@needs_mido
@pytest.mark.parametrize("step", ["1/4", "1/8", "1/16", "1/32"])
def test_what_is_written_as_midi_is_read_again(step: Any, tmp_path: Path) -> None:
    import mido

    from cellwright.tasks.music.midi import write

    for n, roll in enumerate(rolls(5, seed=7, low=0, high=88)):
        roll[0, 5] = roll[-1, 80] = 1
        file = tmp_path / f"{n}.mid"
        write(roll, file, step, 90.0)
        (tune,) = tunes(str(file), MusicConfig(step=step))
        assert (tune.roll == roll).all()
        assert mido.MidiFile(file).length == pytest.approx(len(roll) * 4 * float(Fraction(step)) * 60 / 90, rel=1e-4)


def test_sound_has_the_pitch_and_the_length(tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    sound.write(roll_of([(69, 0, 4)], 4, "", False), file, "1/4", 120.0)
    with wave.open(str(file)) as held:
        assert (held.getnchannels(), held.getsampwidth()) == (1, 2)
        samples = np.frombuffer(held.readframes(held.getnframes()), "<i2")
        rate = held.getframerate()
    assert len(samples) / rate == pytest.approx(4 * 0.5 + 0.5, abs=1e-3)
    loudest = np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples)
    assert loudest == pytest.approx(440, abs=1)
    assert 29_000 < np.abs(samples).max() <= 32_767 and not samples[-rate // 4 :].any()
    sound.write(np.zeros((2, KEYS), np.uint8), file, "1/4", 120.0)  # silence


def pitches(roll: Roll) -> list[list[int]]:
    return [(np.flatnonzero(row) + LOWEST).tolist() for row in roll]


def test_every_kind_of_file_gives_the_same_tunes(tmp_path: Path) -> None:
    found = rolls(4)
    arrays = {"train_0": found[0], "valid": found[1] * np.uint8(90), "test_x": found[2].astype(float), "more": found[3]}
    np.savez(tmp_path / "a.npz", **arrays)
    lists = {
        "train": [pitches(found[0])],
        "dev": [pitches(found[1])],
        "test": [pitches(found[2])],
        "more": pitches(found[3]),
    }
    (tmp_path / "a.json").write_text(json.dumps(lists))
    wide = np.zeros((len(found[0]), 128), bool)
    wide[:, LOWEST : LOWEST + KEYS] = found[0]
    np.save(tmp_path / "wide.npy", wide)
    np.save(tmp_path / "two.npy", np.stack([found[0], found[0]]))
    for name in ("a.npz", "a.json"):
        got = list(tunes(str(tmp_path / name), MusicConfig()))
        assert [tune.part for tune in got] == ["train", "validation", "test", ""]
        assert all((tune.roll == roll).all() for tune, roll in zip(got, found, strict=True)), name
    for name in ("wide.npy", "two.npy"):
        assert all((tune.roll == found[0]).all() for tune in tunes(str(tmp_path / name), MusicConfig()))
    assert len(list(tunes(str(tmp_path), MusicConfig()))) == 4 + 4 + 2 + 1
    (tmp_path / "voices.json").write_text("[[60, 64, null, -1], [60.0], []]")
    (tune,) = tunes(str(tmp_path / "voices.json"), MusicConfig())
    assert [names_in(row) for row in tune.roll] == ["C4 E4", "C4", "-"]


@needs_scipy
def test_mat_files(tmp_path: Path) -> None:
    from scipy.io import savemat

    found = rolls(4)
    cells = {}
    for name, some in (("traindata", found[:2]), ("validdata", found[2:3]), ("testdata", found[3:])):
        cells[name] = np.empty((1, len(some)), object)
        cells[name][0] = some
    savemat(tmp_path / "a.mat", cells, do_compression=True)
    got = list(tunes(str(tmp_path / "a.mat"), MusicConfig()))
    assert [tune.part for tune in got] == ["train", "train", "validation", "test"]
    assert all((tune.roll == roll).all() for tune, roll in zip(got, found, strict=True))
    savemat(tmp_path / "b.mat", {"x": found[0]})
    savemat(tmp_path / "c.mat", {"traindata": found[0]})
    for name, words in (("b.mat", "has x, expected the cells"), ("c.mat", "expected a cell")):
        with pytest.raises(DataError, match=words):
            list(tunes(str(tmp_path / name), MusicConfig()))


def test_classes_are_folders_files_or_names(tmp_path: Path) -> None:
    found = rolls(3)
    (tmp_path / "jig").mkdir()
    np.save(tmp_path / "jig" / "a.npy", found[0])
    np.save(tmp_path / "reel.npy", found[1])
    config = MusicConfig(classes=True)
    assert [tune.label for tune in tunes(str(tmp_path), config)] == ["jig", "reel"]
    (tmp_path / "all.json").write_text(
        json.dumps({"jig": [pitches(found[0])], "reel": [pitches(r) for r in found[1:]]})
    )
    assert [tune.label for tune in tunes(str(tmp_path / "all.json"), config)] == ["jig", "reel", "reel"]


def test_a_tune_is_drawn_with_the_probabilities_of_the_net() -> None:
    data = dataset(rolls(3), [TRAINING, TRAINING, VALIDATION])
    net = net_for(MusicConfig(hidden=3), data)
    with torch.no_grad():
        for p in net.model.parameters():
            p.zero_()
        logits = torch.linspace(-6, 6, KEYS)
        net.model.topology.output[-1].bias.copy_(logits)  # type: ignore[index]
    for temperature in (1.0, 2.5):
        drawn = np.stack([*compose(net, 600, temperature=temperature, seed=3)])
        p = 1 / (1 + np.exp(-logits.numpy() / temperature))
        assert (np.abs(drawn.mean(0) - p) < 5 * np.sqrt(p * (1 - p) / 600) + 1e-9).all()
    assert (np.stack([*compose(net, 3, temperature=0, seed=3)]) == (logits > 0).numpy()).all()


def test_a_tune_goes_on_from_its_beginning() -> None:
    """What a net writes after a prompt is what it writes after having written that prompt itself."""
    data = dataset(rolls(3), [TRAINING, TRAINING, VALIDATION])
    net = net_for(MusicConfig(hidden=6), data)
    with torch.no_grad():
        for p in net.model.parameters():
            p.normal_(0, 2)  # what it does depends on what it has done
    whole = np.stack([*compose(net, 20, temperature=0, seed=0)])
    assert len({row.tobytes() for row in whole}) > 3
    assert (np.stack([*compose(net, 12, temperature=0, seed=0, prompt=whole[:8])]) == whole[8:]).all()
    first, again, other = (np.stack([*compose(net, 20, seed=seed)]) for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()
