from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellwright import Classifier, DataError, Forecaster, InputError, OptionError, RunError, Tagger
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
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-12)
    assert np.array_equal(model.classes_[p.argmax(1)], model.predict(X))
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
    found = model.predict([[1.0, -3.0], [-1.0, 3.0]])
    assert found.dtype == bool and found.tolist() == [False, True]


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


def test_labels_come_back_as_they_were_given(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    X = draw.normal(size=(80, 5))
    y = np.where(X[:, -1] > 0, 7, 10)
    settings = {**SMALL, "hidden": 8, "steps": 60, "lr": 0.03}
    model = Classifier(**settings, out=tmp_path / "run").fit(X, y)
    found = model.predict(X)
    assert found.dtype == np.int64 and set(found) == {7, 10}
    assert model.classes_.tolist() == [7, 10], "in the order of numbers, which is that of the probabilities"
    assert np.array_equal(model.classes_[model.predict_proba(X).argmax(1)], found)
    assert model.score(X, y) == np.mean(found == y) > 0.9
    assert model.score(X, y.astype(float)) == model.score(X, y.tolist()) == model.score(X, y)
    with pytest.raises(DataError, match=r"has the label '10\.5'"):
        model.score(X, y + 0.5)
    assert np.array_equal(Classifier.load(tmp_path / "run").predict(X), found)
    kinds: list[tuple[Any, Any]] = [
        ([str(k) for k in y], ["10", "7"]),
        (y.astype(float), [7.0, 10.0]),
        (y.astype(np.float32) / 10, [float(np.float32(0.7)), 1.0]),
        ([7 if k == 7 else 10.5 for k in y], [7.0, 10.5]),
        (y > 8, [False, True]),
        ([True if k == 7 else "no" for k in y], ["True", "no"]),
    ]
    for given, classes in kinds:
        model = Classifier(**{**settings, "steps": 2}).fit(X, given)
        assert model.classes_.dtype == np.array(classes).dtype and model.classes_.tolist() == classes
        found = model.predict(X)
        assert found.dtype == model.classes_.dtype and found.shape == (80,)
        assert model.score(X, given) == np.mean(found == np.array([str(k) for k in given] if "no" in given else given))
    assert model.predict([]).shape == (0,) and model.predict_proba([]).shape == (0, 2)
    frames = [draw.normal(size=(6, 1)) for _ in range(40)]
    rises = [f[:, 0] > 0 for f in frames]
    tagger = Tagger(**settings).fit(frames, rises)
    assert tagger.classes_.tolist() == [False, True] and tagger.score(frames, rises) > 0.9
    assert all(label is True or label is False for row in tagger.predict(frames) for label in row)


def test_parameters_as_scikit_learn_has_them(tmp_path: Path) -> None:
    model = Classifier(hidden=4, steps=3)
    assert model.get_params() == {"out": None, "quiet": True, "hidden": 4, "steps": 3}
    assert repr(model) == "Classifier(hidden=4, steps=3)"
    assert model.set_params(hidden=6) is model
    assert not hasattr(model, "classes_")
    X, y = split(texts(40))
    assert model.fit(X, y) is model and model.classes_.tolist() == ["x first", "y first"]
    before = model.predict_proba(X[:3])
    model.set_params(level="word")
    assert model.predict_proba(X[:3]).tolist() == before.tolist(), "only the next fit knows of it"
    assert model.fit(X, y).predict_proba(X[:3]).tolist() != before.tolist()
    with pytest.raises(OptionError, match="hidden=0: input should be greater"):
        model.set_params(hidden=0)
    assert model.get_params()["hidden"] == 6, "nothing has changed"
    run = Classifier(hidden=4, steps=3, level="word", out=tmp_path / "run").fit(X, y)
    again = Classifier.load(tmp_path / "run")
    assert again.get_params()["hidden"] == 4 and again.get_params()["level"] == "word"
    assert again.predict_proba(X).tolist() == run.predict_proba(X).tolist()
    assert Classifier(**again.get_params()).fit(X, y).predict_proba(X).tolist() == run.predict_proba(X).tolist()
    season = Forecaster(horizon=2, season=4, steps=2, hidden=4)
    assert not hasattr(season, "quantiles_") and season.get_params()["season"] == 4
    load = np.tile([1.0, 3.0, 2.0, 5.0], 20)
    assert season.fit(load).predict(load).tolist() == season.fit(load).predict(load).tolist(), "fitted again"


def test_with_scikit_learn() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    from sklearn.base import clone, is_classifier
    from sklearn.metrics import f1_score, log_loss, roc_auc_score
    from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_predict, cross_val_score

    X, y = split(texts(60))
    model = Classifier(hidden=4, steps=3, eval_every=3)
    assert is_classifier(model) and clone(model).get_params() == model.get_params()
    assert cross_val_score(model, X, y, cv=3).shape == (3,)
    numbers = {"x first": 10, "y first": 9}  # as texts they are in the other order
    for labels in (y, [numbers[k] for k in y], [numbers[k] - 9.0 for k in y]):
        given = np.array(labels)
        model = Classifier(hidden=8, steps=12, eval_every=12, lr=0.02)
        p = cross_val_predict(model, X, given, cv=2, method="predict_proba")
        found = cross_val_predict(model, X, given, cv=2)
        assert p.shape == (60, 2) and found.dtype == given.dtype
        assert np.array_equal(np.unique(given)[p.argmax(1)], found)
        large = np.unique(given)[1]
        scores: dict[str, Any] = {
            "roc_auc": lambda k, p=p, y=given, large=large: roc_auc_score(y[k] == large, p[k, 1]),
            "neg_log_loss": lambda k, p=p, y=given: -log_loss(y[k], p[k]),
            "f1_macro": lambda k, f=found, y=given: f1_score(y[k], f[k], average="macro"),
        }
        halves = [k for _, k in StratifiedKFold(2).split(X, given)]
        for name, by_hand in scores.items():
            got = cross_val_score(model, X, given, cv=2, scoring=name, error_score="raise")
            np.testing.assert_allclose(got, [by_hand(k) for k in halves], rtol=1e-9)
    assert cross_val_score(model, X, np.array(y) == "x first", cv=2, scoring="f1", error_score="raise").shape == (2,)
    found = GridSearchCV(model, {"hidden": [2, 3]}, cv=2, scoring="accuracy").fit(X, y)
    assert found.best_estimator_.get_params()["hidden"] in (2, 3) and len(found.predict(X)) == 60


def test_tables_of_pandas() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame(np.random.default_rng(0).normal(size=(50, 5)))
    y = pandas.Series(frame[4] > 0).set_axis(range(100, 150))
    model = Classifier(hidden=4, steps=4).fit(frame, y)
    assert model.predict_proba(frame).tolist() == model.predict_proba(frame.to_numpy()).tolist()
    words = pandas.DataFrame({"text": ["a", "b"] * 20, "label": ["x", "y"] * 20})
    assert Classifier(hidden=4, steps=4).fit(words["text"], words["label"]).predict(words["text"][:1])
    with pytest.raises(InputError, match=r"X\[0\] that is neither text nor"):
        Classifier(hidden=4, steps=4).fit(words[["text"]], words["label"])
    times = pandas.date_range("2024-01-01", periods=90, freq="D")
    load = pandas.Series(np.tile([1.0, 2, 3, 4, 5, 6, 9], 13)[:90], index=times)
    series = Forecaster(horizon=7, season=7, steps=4, hidden=4).fit(load, times=load.index)
    assert series.predict(load, times=times).shape == (7,)


def test_what_is_wrong() -> None:
    with pytest.raises(OptionError, match="hidden=0: input should be greater"):
        Classifier(hidden=0)
    with pytest.raises(OptionError, match="got the setting 'hiden', expected hidden"):
        Classifier(hiden=8)
    with pytest.raises(OptionError, match="got the setting 'zzz', expected one of hidden, layers, cell"):
        Classifier(zzz=8)
    with pytest.raises(OptionError, match=r"validation=0\.6 and test=0\.5 leave no data"):
        Tagger(validation=0.6, test=0.5)
    load = np.arange(99.0)
    load[7] = np.nan
    fill = "fill='mean', 'previous' or 'zero'"
    with pytest.raises(DataError, match=f"y, row 7, column 'y0' has no value; fill it in, or choose {fill}"):
        Forecaster(steps=2).fit(load)
    days = np.datetime64("2024-01-01") + np.delete(np.arange(100), 50)
    with pytest.raises(DataError, match=f"are missing after .*; add them, choose {fill}, or leave times away"):
        Forecaster(steps=2).fit(np.arange(99.0), times=days)
    with pytest.raises(DataError, match="give more data, a shorter window or horizon, or another validation or test"):
        Forecaster(season=12).fit(np.arange(20.0))
    with pytest.raises(DataError, match="a larger validation, or validation_data"):
        Classifier().fit(["a"], ["x"])
    with pytest.raises(OptionError, match="give data to fit"):
        Classifier(data=("a.csv",))
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
        (Tagger, [["a", "b"]], ["x"], r"'x' as y\[0\], expected 2 labels"),
        (Tagger, [["a"]], [3], r"3 as y\[0\], expected 1 labels"),
        (Tagger, [["a"]], [[None]], r"None as a label in y\[0\]"),
        (Classifier, ["a", "b"], None, "got no y"),
        (Classifier, None, ["x"], "got None as X"),
        (Classifier, ["a"], 3, "3 as y"),
        (Classifier, ["a", "b"], ["x", None], r"None as a label in y\[1\]"),
        (Classifier, ["a", "b"], [1.0, np.nan], r"nan as a label in y\[1\]"),
        (Classifier, ["a", "b"], np.array([["x"], ["y"]]), r"array\(\['x'\].*\) as a label in y\[0\]"),
    ]
    for kind, X, y, words in cases:
        with pytest.raises(InputError, match=words):
            kind().fit(X, y)
    for mixed in (["ab", [1.0]], [[1.0], "ab"], [np.zeros((2, 1)), np.zeros((2, 3))]):
        with pytest.raises(DataError, match=r"X\[1\] has .*, expected .* as in the first example"):
            Classifier().fit(mixed * 5, ["x", "y"] * 5)
    with pytest.raises(InputError, match="got no sequence as X"):
        Classifier(hidden=2, steps=1).fit(["ab", "c"] * 9, ["x", "y"] * 9).score([], [])
