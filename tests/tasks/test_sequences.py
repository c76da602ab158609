"""Texts as symbols, scores of texts beside sums by hand, and the readers of images beside numpy."""

import math
import re
import sys
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cellwright import DataError
from cellwright.tasks.caption import captions
from cellwright.tasks.caption.encoder import ImageEncoder, grid
from cellwright.tasks.caption.images import Images
from cellwright.tasks.data.merges import learn_merges
from cellwright.tasks.data.parts import TEST, TRAINING
from cellwright.tasks.sequences import scores
from cellwright.tasks.sequences.cider import cider_d
from cellwright.tasks.sequences.dataset import Example, Pairs
from cellwright.tasks.sequences.symbols import JOINT, join, split, to_read, to_write


@pytest.mark.parametrize(
    "text", ["the dog.", "“Où est-ce?” (1984-03-23)", "a", "...", "", "l'eau d’or", "x  y", "日本 語"]
)
@pytest.mark.parametrize("level", ["word", "char", "bpe"])
def test_a_text_comes_back(text: str, level: str) -> None:
    symbols = split(text, level)
    if level == "bpe":  # words, of which the bytes are symbols
        symbols = [to_write(bytes([b])) for word in symbols for b in word.encode()]
    assert join(symbols, level) == " ".join(text.split())
    assert all(symbols)


def test_words_know_what_stood_before_them() -> None:
    assert split(" the dog's. ", "word") == ["the", "dog", JOINT + "'", JOINT + "s", JOINT + "."]
    assert join([JOINT + ".", "a"], "word") == ". a"  # a net may write anything


def test_cider_d_by_hand() -> None:
    """Two images: log(2 / 1) for every n-gram, which cancels."""
    same = (1 + 1) / 4  # one for n = 1 and 2; there are no longer n-grams
    # "c c d" and "c d": (2, 1) clipped to (1, 1); bigrams (cc, cd) and (cd); one word longer
    other = math.exp(-1 / 72) * (2 / math.sqrt(5 * 2) + 1 / math.sqrt(2)) / 4
    assert cider_d(["a B!", "c c d"], [["a b"], ["C d."]]) == pytest.approx(10 * (same + other) / 2, rel=1e-12)
    # with a second reference that has nothing in common with it, the image has half
    assert cider_d(["a b", "x"], [["a b", "e f"], ["c d"]]) == pytest.approx(10 * same / 2 / 2, rel=1e-12)
    # what is in every image counts nothing
    assert cider_d(["a", "a"], [["a b"], ["a c"]]) == 0
    assert cider_d(["a b"], [["a b"]]) == 0
    # df of "a" is 2 of 3: its weight is log(3/2), that of "b" log 3
    u, v = math.log(3 / 2), math.log(3)
    wanted = (u * u) / (u * math.sqrt(u * u + v * v)) * math.exp(-1 / 72) / 4
    assert cider_d(["a", "", ""], [["a b"], ["a c"], ["d"]]) == pytest.approx(10 * wanted / 3, rel=1e-12)


def test_bleu_and_chrf_with_as_many_references_as_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sacrebleu", reason="scores of texts: pip install 'cellwright[bleu]'")
    texts, references = ["the cat sat on the mat", "a dog"], [["the cat sat on a mat", "no"], ["a dog"]]
    # n-grams that are right: 6 + 2 - 1 of 8 (one "the" too many), 4 of 6, 2 of 4, 1 of 3; as long as the reference
    wanted = 100 * math.exp((math.log(7 / 8) + math.log(4 / 6) + math.log(2 / 4) + math.log(1 / 3)) / 4)
    assert scores.bleu(texts, references) == pytest.approx(wanted, rel=1e-9)
    assert scores.chrf(["abc"], [["abc"]]) == pytest.approx(100)
    names = ("exact", "BLEU", "chrF", "CIDEr-D")
    assert tuple(scores.scored(texts, references, names, "13a")) == names
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    assert tuple(scores.scored(texts, references, names, "13a")) == ("exact", "CIDEr-D")
    assert scores.scored(texts, references, names, "13a")["exact"] == 0.5


def test_pairs_are_sources_with_their_texts() -> None:
    data = Pairs("word", 3)
    data.add(Example("1", ["a", "b"], ["x y", "x"]), TRAINING)
    data.add(Example("2", ["a"], ["x y z w", "z"]), TRAINING)  # the first one is too long
    data.add(Example("3", ["a", "a", "a", "a"], ["x"]), TRAINING)  # so is this one's source
    data.add(Example("4", ["c"], ["q  r s t u", "v"], "C"), TEST)
    data.close()
    assert len(data) == 3 and data.left_out == 2 and data.longest_target == 2
    assert data.source_of.tolist() == [0, 0, 1, 2, 2]
    assert data.pairs(TEST).tolist() == [3, 4]
    assert data.texts(2) == ["q r s t u", "v"]
    assert data.target_counts == {"x": 2, "y": 1, "z": 1}
    assert data.source_counts == {"a": 2, "b": 1}


ROWS = [("the old dog", "der alte Hund"), ("the older dogs", "die älteren Hunde"), ("old and older", "alt und älter")]


def test_words_are_cut_into_pieces_that_are_learned() -> None:
    data = Pairs("bpe")
    for source, text in ROWS * 4:
        data.add(Example("", split(source, "bpe"), [text]), TRAINING)
    data.add(Example("", split("the Öld dog", "bpe"), ["ein Hund ß"], "the Öld dog"), TEST)
    data.close()
    data.cut(262)
    assert data.sources is not None
    sides = (
        (data.sources, data.source_symbols, data.source_counts),
        (data.targets, data.target_symbols, data.target_counts),
    )
    for side, (kept, symbols, counts) in enumerate(sides):
        texts, learned, names = [row[side] for row in ROWS * 4], data.pieces[side], list(symbols)
        assert learned is not None
        words = Counter(word for text in texts for word in re.findall(r" ?\w+", text))
        assert learned.merges == learn_merges({word.encode(): n for word, n in words.items()}, 6)
        wanted = [[k for word in re.findall(r" ?\w+", text) for k in learned.spell(word)] for text in texts]
        assert [kept[n].tolist() for n in range(12)] == wanted
        assert counts == Counter(names[k] for ids in wanted for k in ids)
        assert [join([names[k] for k in ids], "bpe") for ids in wanted] == texts
    assert data.longest_target == max(data.targets.lengths[:12])
    assert join([list(data.source_symbols)[k] for k in data.sources[12].tolist()], "bpe") == "the Öld dog"
    assert data.texts(12) == ["ein Hund ß"] and data.shown(12) == "the Öld dog"
    # what is read later is cut in the same way
    later = Pairs("bpe", pieces=data.pieces)
    later.add(Example("", split("the Öld dog", "bpe"), ["ein Hund ß"]), TEST)
    later.close()
    assert later.sources is not None
    for old, new, known, found in (
        (data.sources[12], later.sources[0], data.source_symbols, later.source_symbols),
        (data.targets[12], later.targets[0], data.target_symbols, later.target_symbols),
    ):
        assert [list(known)[k] for k in old.tolist()] == [list(found)[k] for k in new.tolist()]


def test_pairs_that_are_long_in_pieces_are_left_out() -> None:
    data = Pairs("bpe", 6)
    rows = [("ab", "ab"), ("ab", "abcdefg"), ("abcdefg", "ab"), ("ab ab", "ab"), ("a b c d e f g", "a")]
    for source, text in rows:  # the last one has too many words, before anything is learned
        data.add(Example("", split(source, "bpe"), [text]), TRAINING)
    data.add(Example("", split("ab", "bpe"), ["abcdefg"]), TEST)
    data.close()
    data.cut(257)  # "ab" is the one pair
    assert data.left_out == 1
    assert data.targets.lengths.tolist() == [1, 6, 1, 1, 6]
    data = Pairs("bpe", 5)
    for source, text in rows:
        data.add(Example("", split(source, "bpe"), [text]), TRAINING)
    data.add(Example("", split("ab", "bpe"), ["abcdefg"]), TEST)
    data.close()
    data.cut(257)
    assert data.left_out == 3 and data.pairs(TRAINING).tolist() == [0, 3] and data.pairs(TEST).tolist() == [4]
    assert data.longest_target == 1


def test_a_symbol_is_read_as_far_as_it_is_a_character() -> None:
    assert [to_read(to_write(piece), "bpe") for piece in (b" dog", "ä".encode(), b"\xc3")] == [" dog", "ä", "\ufffd"]
    assert to_read("\xe9", "char") == "\xe9"


@pytest.mark.parametrize("collide", [False, True])
def test_captions_are_found_by_names(collide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if collide:
        monkeypatch.setattr(captions, "hash", lambda name: len(name), raising=False)
    kept = captions.Captions()
    for name, text in (("b", "one"), ("a", "über 😀"), ("c", "x"), ("b", "two"), ("dd", "y"), ("c", "z")):
        kept.add(name, text)
    kept.close()
    assert kept.take("b") == ["one", "two"] and kept.take("e") == [] and kept.take("ee") == []
    assert kept.left() == ["a", "c", "dd"]
    assert kept.take("a") == ["über 😀"] and kept.take("b") == ["one", "two"]
    assert kept.left() == ["c", "dd"]
    assert captions.Captions().close().take("a") == []


def archive(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("compressed", [True, False])
def test_archives_are_read_row_by_row(tmp_path: Path, compressed: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3, 3), dtype=np.uint8)
    path = tmp_path / "a.npz"
    (np.savez_compressed if compressed else np.savez)(path, images=pixels, keys=list("abcde"), other=np.arange(3))
    found = list(Images([path], None, None))
    assert [one.keys for one in found] == [(k,) for k in "abcde"]
    assert all((one.values == row).all() for one, row in zip(found, pixels, strict=True))
    grey = list(Images([archive(tmp_path / "b.npz", x=pixels[..., 0])], None, None))
    assert [one.keys for one in grey] == [(str(n),) for n in range(5)]
    assert (grey[3].values == pixels[3, :, :, :1]).all()
    features = np.random.default_rng(0).normal(size=(4, 6))
    for rows, shape in ((features, (1, 6)), (features.reshape(4, 3, 2), (3, 2))):
        read = list(Images([archive(tmp_path / "c.npz", features=rows)], None, None))
        assert [one.values.shape for one in read] == [shape] * 4
        assert np.array_equal(np.stack([one.values for one in read]).reshape(4, 6), features.astype(np.float32))


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"images": np.zeros((2, 4, 4), np.int64)}, "int64"),
        ({"images": np.zeros((2, 4), np.uint8)}, "expected images as uint8"),
        ({"images": np.zeros((2, 4, 4, 2), np.uint8)}, "1, 3 or 4 channels"),
        ({"a": np.zeros((2, 2)), "b": np.zeros((2, 2))}, "call the one of the images"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "keys": ["a"]}, "1 names in `keys` and 2 images"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "keys": np.zeros(2)}, "'keys' is float64"),
        ({"features": np.array([[1.0, np.nan]])}, "features of '0' are not all finite"),
        ({"images": np.array([[1, "a"]], object)}, "object"),
    ],
)
def test_wrong_archives(tmp_path: Path, arrays: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        list(Images([archive(tmp_path / "a.npz", **arrays)], None, None))


def test_damaged_archives(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.npz", images=np.random.default_rng(0).integers(0, 256, (9, 40, 40), dtype=np.uint8))
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", whole[:3000] + bytes(50) + whole[3050:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"a.npz is not a sound .npz file"):
            list(Images([path], None, None))
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("images.npy", b"\x93NUMPY\x01\x00")
    with pytest.raises(DataError, match=r"a.npz is not a sound .npz file"):
        list(Images([path], None, None))


@pytest.mark.parametrize("shape", [(1, 1, 1), (50, 200, 3), (28, 28, 1), (224, 225, 3)])
def test_an_encoder_of_images_has_few_places(shape: tuple[int, int, int]) -> None:
    H, W = grid(shape)[-1]
    assert H * W <= 64
    encoder = ImageEncoder(shape, 24, 0.0)
    values, largest, lengths = encoder(torch.randint(256, (2, *shape), dtype=torch.uint8))
    assert values.shape == (H * W, 2, 24) and lengths is None
    assert torch.allclose(largest, (values - encoder.position).amax(0), atol=1e-6)


def test_an_image_is_read_as_it_lies() -> None:
    """One bright pixel is seen in the place that is above it, and nowhere else."""
    torch.manual_seed(0)
    encoder = ImageEncoder((8, 16, 3), 16, 0.0).eval()
    dark = torch.zeros(1, 8, 16, 3, dtype=torch.uint8)
    bright = dark.clone()
    bright[0, 0, 15, 1] = 255
    change = (encoder(bright)[0] - encoder(dark)[0]).abs().sum(-1).flatten()
    H, W = grid((8, 16, 3))[-1]
    seen = change.reshape(H, W).nonzero().tolist()
    assert [0, W - 1] in seen and all(h <= 1 and w >= W - 2 for h, w in seen)


def test_files_of_images_are_read_as_a_person_sees_them(tmp_path: Path) -> None:
    """16 bits, transparency and EXIF, against what a plain formula says; 3 and 4 channels too."""
    pillow = pytest.importorskip("PIL.Image", reason="files of images: pip install 'cellwright[images]'")

    def read(image: Any, channels: int, suffix: str = ".png", **options: Any) -> np.ndarray[Any, Any]:
        image.save(tmp_path / f"a{suffix}", **options)
        found = next(iter(Images([tmp_path / f"a{suffix}"], (2, 3, channels), None))).values
        assert found.dtype == np.uint8
        return found

    deep = np.array([[0, 1000, 20000], [32768, 60000, 65535]], np.uint16)
    eight = [[round(int(v) / 257) for v in row] for row in deep]
    assert read(pillow.fromarray(deep), 1)[..., 0].tolist() == eight
    assert read(pillow.fromarray(deep), 3).tolist() == [[[v] * 3 for v in row] for row in eight]
    assert read(pillow.fromarray(deep), 1, transparency=1000)[0, 1, 0] == 255
    # black, where it is opaque: on white as a mean that alpha weighs
    alpha = np.array([[0, 255, 128], [0, 64, 255]], np.uint8)
    logo = np.dstack([np.zeros((2, 3, 3), np.uint8), alpha])
    on_white = np.repeat(255 - alpha[..., None], 3, 2)
    assert np.array_equal(read(pillow.fromarray(logo), 3), on_white)
    assert np.array_equal(read(pillow.fromarray(logo), 1), on_white[..., :1])
    assert np.array_equal(read(pillow.fromarray(logo[..., 2:]), 3), on_white)
    assert np.array_equal(read(pillow.fromarray(logo), 4), logo)
    palette = pillow.fromarray((alpha > 200).astype(np.uint8))
    palette.putpalette([9, 9, 9, 200, 0, 0])
    colours = [[[200, 0, 0] if a > 200 else [255] * 3 for a in row] for row in alpha]
    assert read(palette.copy(), 3, transparency=0).tolist() == colours
    # a camera that lay on its side
    upright = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    for orientation in range(1, 9):
        turned = np.rot90(upright, {3: 2, 4: 2, 5: 1, 6: 1, 7: 3, 8: 3}.get(orientation, 0))
        stored = turned[:, ::-1] if orientation in (2, 4) else turned[::-1] if orientation in (5, 7) else turned
        exif = pillow.Exif()
        exif[0x0112] = orientation
        assert np.array_equal(read(pillow.fromarray(stored.copy()), 1, exif=exif)[..., 0], upright), orientation
    pillow.fromarray(deep.astype(np.float32)).save(tmp_path / "f.png", format="TIFF")
    with pytest.raises(DataError, match=r"f.png has 32 bits per number \(F\), expected 8 or 16"):
        list(Images([tmp_path / "f.png"], None, None))


def test_images_of_floats(tmp_path: Path) -> None:
    given = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3)).astype(np.uint8)
    for dtype in (np.float32, np.float64):
        np.savez(tmp_path / "a.npz", images=(given / 255).astype(dtype))
        assert all(
            np.array_equal(p.values, v) for p, v in zip(Images([tmp_path / "a.npz"], None, None), given, strict=True)
        )
    for wrong in (-0.1, 1.5, np.nan):
        images = given / 255
        images[1, 2, 3, 0] = wrong
        np.savez(tmp_path / "a.npz", images=images)
        with pytest.raises(DataError, match=r"image '1' has numbers from .* expected 0 to 1.*\(255 \* images\).astype"):
            list(Images([tmp_path / "a.npz"], None, None))
