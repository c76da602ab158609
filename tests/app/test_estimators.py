from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellwright import Classifier, InputError, OptionError, RunError, Tagger
from tests.app.test_labels import sentences, texts

SMALL: dict[str, Any] = {"hidden": 24, "steps": 250, "eval_every": 125, "lr": 0.01, "dropout": 0.0, "unknown": 0.01}


def split(pairs: Any) -> tuple[list[Any], list[Any]]:
    X, y = zip(*pairs, strict=True)
    return list(X), list(y)


def test_texts(tmp_path: Path) -> None:
    X, y = split(texts(400))
    model = Classifier(**SMALL, out=tmp_path / "run").fit(X, y)
    X, y = split(texts(60, 1))
    assert model.score(X, y) > 0.95
    assert model.score(X, y) == np.mean([a == b for a, b in zip(model.predict(X), y, strict=True)])
    p = model.predict_proba(X)
    assert p.shape == (60, 2)
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)  # the softmax is in float32
    assert [model.classes_[k] for k in p.argmax(1)] == model.predict(X)
    again = Classifier.load(tmp_path / "run")
    assert again.predict_proba(X).tolist() == p.tolist()
    with pytest.raises(RunError, match="a run of classify, expected one of tag"):
        Tagger.load(tmp_path / "run")


def test_series() -> None:
    draw = np.random.default_rng(0)
    X = [draw.normal(size=draw.integers(2, 9)) for _ in range(200)]
    y = [x[-1] > 0 for x in X]
    model = Classifier(**{**SMALL, "hidden": 8, "bidirectional": False}).fit(X, y)
    assert model.score(X, y) > 0.93
    assert model.predict([[1.0, -3.0], [-1.0, 3.0]]) == ["False", "True"]


def test_words_and_frames() -> None:
    data = sentences(150)
    X, y = [[w for w, _ in s] for s in data], [[k for _, k in s] for s in data]
    model = Tagger(**{**SMALL, "hidden": 12, "characters": 12, "steps": 120, "lr": 0.02}).fit(X, y)
    assert model.predict([["abcdly", "not", "gfeds"]]) == [["ADV", "PART", "NEG"]]
    assert set(model.measure(X, y)) == {"loss", "accuracy", "macro F1", "span F1"}
    frames = [np.random.default_rng(n).normal(size=(12, 2)) for n in range(60)]
    labels = [(f[:, 0] > 0).tolist() for f in frames]
    model = Tagger(**{**SMALL, "hidden": 8, "steps": 80, "lr": 0.03}).fit(frames, labels)
    assert model.score(frames, labels) > 0.93
    assert [p.shape for p in model.predict_proba(frames[:2])] == [(12, 2)] * 2
    rises = [[bool(d > 0) for d in np.diff(f[:, 0], prepend=f[0, 0])] for f in frames]
    model = Tagger(**{**SMALL, "hidden": 4, "steps": 80, "lr": 0.03, "deltas": True}).fit(frames, rises)
    assert model.score(frames, rises) > 0.93


def test_what_is_wrong() -> None:
    with pytest.raises(OptionError, match="--hidden 0"):
        Classifier(hidden=0)
    with pytest.raises(RunError, match="call fit first"):
        Classifier().predict(["a"])
    cases: list[tuple[type, Any, Any, str]] = [
        (Classifier, ["a"], ["x", "y"], "1 sequences and 2 labels"),
        (Classifier, "abc", ["x"], "one text as X or y"),
        (Classifier, ["a", ""], ["x", "y"], r"empty sequence as X\[1\]"),
        (Classifier, [[1.0], [np.nan]], ["x", "y"], r"nan in X\[1\], step 0, feature 0"),
        (Classifier, [object()], ["x"], r"X\[0\] that is neither text nor"),
        (Classifier, [np.zeros((1, 1, 1))], ["x"], "shape"),
        (Tagger, [["a", "b"]], [["x"]], r"1 labels as y\[0\], expected 2"),
        (Tagger, ["a b"], [["x"]], "expected a list of words"),
    ]
    for kind, X, y, words in cases:
        with pytest.raises(InputError, match=words):
            kind().fit(X, y)
