"""Captions of NLVR's images: split by sentence, and what copying from the nearest training image gives.

A part has whole groups of sentences and images: no sentence, and no image, is in two parts. An image's references are
all of its true sentences.
"""

import csv
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellwright.tasks.sequences.cider import cider_d
from cellwright.tasks.sequences.scores import ABSENT, bleu, there

Images = dict[str, NDArray[Any]]  # by name: uint8 [H, W, C]
Captions = dict[str, list[str]]  # by the name of an image


def read(data: Path) -> tuple[Images, Captions]:
    """The images that have a true sentence, and those sentences, in small letters and without the dot at the end."""
    images: Images = {}
    captions: Captions = {}
    names: dict[bytes, str] = {}
    with np.load(data / "nlvr_caption" / "nlvr_50x200.npz") as held:
        for part in ("dev", "test"):
            fields = (held[f"{part}_{name}"] for name in ("images", "captions", "label", "id"))
            for pixels, sentence, true, key in zip(*fields, strict=True):
                if true:
                    name = names.setdefault(pixels.tobytes(), f"{part}-{key}")
                    images[name] = pixels
                    captions.setdefault(name, []).append(" ".join(re.findall(r"[\w']+|,", str(sentence).lower())))
    return images, captions


def parts(captions: Captions, seed: int = 1) -> dict[str, list[str]]:
    """Names of images for train (70 %), validation and test (15 % each), by sentences."""
    group: dict[str, str] = {}

    def root(one: str) -> str:
        while group.setdefault(one, one) != one:
            one = group[one]
        return one

    for name, sentences in captions.items():
        for sentence in sentences:
            group[root("sentence " + sentence)] = root("image " + name)
    together: dict[str, list[str]] = {}
    for name in captions:
        together.setdefault(root("image " + name), []).append(name)
    order = sorted(together.values())
    random.Random(seed).shuffle(order)
    found: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for k, names in enumerate(order):
        share = k / len(order)
        found["train" if share < 0.7 else "validation" if share < 0.85 else "test"] += names
    return found


def prepare(data: Path, work: Path) -> None:
    """`images.npz`, and a table of captions for each part."""
    if not there():
        raise SystemExit(ABSENT)
    images, captions = read(data)
    np.savez(work / "images.npz", images=np.stack(list(images.values())), keys=list(images))
    for part, names in parts(captions).items():
        with (work / f"{part}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["image", "caption"])
            rows.writerows([name, sentence] for name in names for sentence in captions[name])


def nearest(
    train: NDArray[Any], test: NDArray[Any], names: dict[str, list[str]], captions: Captions
) -> tuple[list[str], list[list[str]]]:
    """For each test image the (first) sentence of the training image that is nearest; and its own sentences."""
    rows, new = (part.reshape(len(part), -1).astype(np.float64) for part in (train, test))
    found = []
    for row in new:
        k = int(((rows - row) ** 2).sum(1).argmin())
        found.append(captions[names["train"][k]][0])
    return found, [captions[name] for name in names["test"]]


def baselines(data: Path) -> dict[str, float]:
    """BLEU on the test part of copying the nearest training image's caption, and of the most frequent caption."""
    images, captions = read(data)
    names = parts(captions)
    pixels = [np.stack([images[name] for name in names[part]]) for part in ("train", "test")]
    copied, truth = nearest(*pixels, names, captions)
    sentences = [sentence for name in names["train"] for sentence in captions[name]]
    frequent = [max(sorted(set(sentences)), key=sentences.count)] * len(truth)
    print(f"  CIDEr-D nearest image {cider_d(copied, truth):.4f}, most frequent caption {cider_d(frequent, truth):.4f}")
    return {"nearest image": bleu(copied, truth), "most frequent caption": bleu(frequent, truth)}
