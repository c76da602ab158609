import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwright import DataError
from cellwright.tasks.data import ragged
from cellwright.tasks.data.columns import filled
from cellwright.tasks.data.lexicon import Lexicon
from cellwright.tasks.data.moments import Moments
from cellwright.tasks.data.parts import TEST, TRAINING
from cellwright.tasks.data.ragged import Ragged
from cellwright.tasks.labels.dataset import IGNORE, Batches, Dataset, Encoding, Example

NAN = float("nan")


@pytest.mark.parametrize("width", [0, 3])
def test_ragged_gives_back_what_it_was_given(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ragged, "_BUFFER", 50)
    rng = np.random.default_rng(0)
    given = [rng.random((n, width) if width else n).astype(np.float32) for n in (3, 0, 1, 12, 7)]
    kept = Ragged(np.float32, width)
    for one in given:
        kept.append(one)
    kept.close()
    assert len(kept) == 5
    assert kept.lengths.tolist() == [3, 0, 1, 12, 7]
    assert isinstance(kept[3], np.memmap)
    for n, one in enumerate(given):
        np.testing.assert_array_equal(kept[n], one)
    rows = kept.pad(np.array([2, 4]), -1)
    assert rows.shape == (7, 2, *([width] if width else []))
    np.testing.assert_array_equal(rows[:1, 0], given[2])
    np.testing.assert_array_equal(rows[:, 1], given[4])
    assert (rows[1:, 0] == -1).all()


def test_ragged_of_nothing() -> None:
    assert Ragged(np.int32).close().pad(np.array([], int), 0).shape == (0, 0)


VALUES = st.lists(st.lists(st.sampled_from([NAN, -3.0, 0.5, 1e3, 2.0]), min_size=2, max_size=2), min_size=1, max_size=9)


@given(st.lists(VALUES, min_size=1, max_size=4))
def test_moments_are_those_of_all_rows_at_once(parts: list[list[list[float]]]) -> None:
    moments = Moments(2)
    for part in parts:
        moments.add(np.array(part, np.float32))
    whole = np.concatenate([np.array(part) for part in parts])
    for k in range(2):
        column = whole[~np.isnan(whole[:, k]), k]
        if len(column):
            assert moments.mean[k] == pytest.approx(column.mean(), rel=1e-9, abs=1e-9)
            expected = column.std() if column.std() > 1e-6 else 1.0
            assert moments.deviation[k] == pytest.approx(expected, rel=1e-9)


def encoding(words: Lexicon | None, labels: tuple[str, ...], **more: object) -> Encoding:
    values = {"characters": None, "lower": False, "mean": (), "deviation": (), "layout": {}, **more}
    return Encoding(labels, words, **values)  # type: ignore[arg-type]


def test_words_their_characters_and_what_is_unknown() -> None:
    data = Dataset()
    data.add(Example("1", ["The", "dog"], ["D", "N"]), TRAINING)
    data.add(Example("2", ["the", "Cat", "the"], ["D", "N", "D"]), TEST)
    data.close()
    assert data.symbol_counts == {"The": 1, "dog": 1}
    assert data.label_counts == {"D": 1, "N": 1}
    known = encoding(
        Lexicon(["the", "dog"], [1, 1]), ("D", "N"), characters=Lexicon(list("thedog"), [1] * 6), lower=True
    )
    batch = Batches(data, known)(np.array([0, 1]))
    assert batch.x.T.tolist() == [[1, 2, batch.x[2, 0].item()], [1, 0, 1]]
    assert batch.lengths.tolist() == [2, 3]
    assert batch.y.T.tolist() == [[0, 1, IGNORE], [0, 1, 0]]
    assert batch.characters is not None
    spelled, lengths, where = batch.characters
    for b, words in enumerate([["The", "dog"], ["the", "Cat", "the"]]):
        for t, word in enumerate(words):
            u = int(where[t, b])
            ids = [0 if c not in "thedog" else "thedog".index(c) + 1 for c in word]
            assert spelled[: lengths[u], u].tolist() == ids


def test_numbers_are_standardised_and_missing_ones_are_the_mean() -> None:
    data = Dataset()
    data.add(Example("1", np.array([[1.0, 10.0], [3.0, NAN]], np.float32), ["a"]))
    data.add(Example("2", np.array([[2.0, 30.0]], np.float32), ["b"]))
    data.close()
    known = encoding(None, ("a", "b"), mean=(2.0, 20.0), deviation=(0.5, 10.0))
    batch = Batches(data, known)(np.array([0, 1]))
    assert batch.x[:, 0].tolist() == [[-2.0, -1.0], [2.0, 0.0]]
    assert batch.x[:, 1].tolist() == [[0.0, 1.0], [0.0, 0.0]]
    assert batch.y.tolist() == [[0, 1]]


def test_an_encoding_survives_json_and_refuses_what_it_does_not_know() -> None:
    known = encoding(Lexicon(["x"], [3]), ("a", "b"), layout={"text": "t"})
    again = Encoding.from_json(known.to_json())
    assert again.to_json() == known.to_json()
    with pytest.raises(
        DataError, match="here has the label 'c', which was not in the training data; they had 'a', 'b'"
    ):
        again.check(Example("here", ["x"], ["a", "c"]))
    with pytest.raises(DataError, match="here has 2 features per step, and the net was trained on words"):
        again.check(Example("here", np.zeros((1, 2)), ["a"]))


def test_other_columns_than_before() -> None:
    data = Dataset()
    data.add(Example("1", np.zeros((1, 2)), ["a"]))
    with pytest.raises(DataError, match=r"second has 3 feature.s. per step, expected 2"):
        data.add(Example("second", np.zeros((1, 3)), ["a"]))


def test_the_lexicon_knows_the_frequent_ones() -> None:
    lexicon = Lexicon.build({"a": 5, "b": 1, "c": 5, "d": 2}, at_least=2, most=2)
    assert lexicon.symbols == ["a", "c"]
    assert lexicon.encode(["c", "z", "a"]).tolist() == [2, 0, 1]
    assert lexicon.doubt(0.25).tolist() == pytest.approx([0, 0.25 / 5.25, 0.25 / 5.25])
    assert lexicon.doubt(0).tolist() == [0, 0, 0]
    assert Lexicon.from_json(lexicon.to_json()).encode(["c"]).tolist() == [2]


def test_what_stands_for_missing_numbers() -> None:
    rows = np.array([[NAN, 1], [2, NAN], [NAN, NAN]], np.float32)
    assert filled(rows, "zero").tolist() == [[0, 1], [2, 0], [0, 0]]
    np.testing.assert_array_equal(filled(rows, "previous"), [[NAN, 1], [2, 1], [2, 1]])
    np.testing.assert_array_equal(filled(rows, "mean"), rows)
