"""The nets of `classify` and `tag` against the same ones written with torch.nn, one sequence at a time, in float64."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax

from cellwright.tasks.classify.config import ClassifyConfig
from cellwright.tasks.classify.job import ClassifyJob
from cellwright.tasks.data.parts import TRAINING, VALIDATION, Draw
from cellwright.tasks.labels.dataset import Dataset, Example
from cellwright.tasks.labels.job import LabelJob
from cellwright.tasks.labels.net import LabelTask, Net
from cellwright.tasks.tag.config import TagConfig
from cellwright.tasks.tag.job import TagJob, TagReader

SENTENCES = [["the", "The", "dogs"], ["a"], ["the", "a", "cats", "dogs", "a"], ["zebra", "the"]] * 3


def made(job: LabelJob, config: Any, examples: list[Example]) -> tuple[LabelTask, Net, Dataset]:
    data = job.gather(config, Dataset(), {}, examples)
    config = job.settle(config, data)
    torch.manual_seed(1)
    net = job.build(config, job.learn(config, data))
    return job.task(config, net, data), net, data


def twin(weights: dict[str, Tensor], prefix: str, inputs: int, hidden: int) -> nn.LSTM:
    lstm = nn.LSTM(inputs, hidden, bidirectional=True).double()
    lstm.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    return lstm


def exactly(net: Net) -> dict[str, Tensor]:
    net.model.double().eval()
    return dict(net.model.state_dict())


def test_the_tagger_is_word_vectors_characters_and_two_directions() -> None:
    config = TagConfig(hidden=5, characters=3, embed=4, validation=0.3, seed=2)
    examples = [Example(f"{n}", s, ["N" if w[-1] == "s" else "D" for w in s], s) for n, s in enumerate(SENTENCES)]
    task, net, data = made(TagJob(), config, examples)
    weights, encoding = exactly(net), net.encoding
    assert encoding.words is not None and encoding.characters is not None
    spell = twin(weights, "front.characters.", len(encoding.characters), 3)
    read = twin(weights, "topology.recurrent.", 4 + 6, 5)
    indices = np.arange(len(data))
    found = {i: (scores, truth) for i, scores, truth in net.run(task._batches, indices)}
    for i, sentence in enumerate(SENTENCES):
        rows = []
        for word in sentence:
            ids = torch.from_numpy(encoding.characters.encode(word))
            _, (h, _) = spell(nn.functional.one_hot(ids, len(encoding.characters)).double())  # [2, 3]
            known = int(encoding.words.encode([word.lower()])[0])
            rows.append(torch.cat([weights["front.embed.weight"][known], h.flatten()]))
        output, _ = read(torch.stack(rows))
        logits = output @ weights["topology.output.1.weight"].T + weights["topology.output.1.bias"]
        torch.testing.assert_close(torch.from_numpy(found[i][0]), log_softmax(logits, -1), rtol=1e-10, atol=1e-12)
        assert [encoding.labels[k] for k in found[i][1]] == list(examples[i].labels)


@pytest.mark.parametrize("balance", [0.0, 1.0])
def test_the_loss_of_the_classifier_is_the_weighted_cross_entropy(balance: float) -> None:
    config = ClassifyConfig(hidden=5, batch=4, dropout=0.0, unknown=0.0, validation=0.3, balance=balance)
    texts = ["abba", "a", "bab", "abcabca", "cc", "b"] * 4
    examples = [Example("", list(t), ["long" if len(t) > 3 else "short"]) for t in texts]
    task, net, data = made(ClassifyJob(), config, examples)
    weights = exactly(net)
    if task._weight is not None:
        task._weight = task._weight.double()
    words = net.encoding.words
    assert words is not None
    read = twin(weights, "topology.recurrent.", len(words), 5)
    training = data.part(TRAINING)
    count = {k: sum(examples[i].labels[0] == k for i in training) for k in ("long", "short")}
    for step in (0, 1, task.order.batches):
        logits, truth = [], []
        for i in task.order(step):
            ids = torch.from_numpy(words.encode(texts[i]))
            _, (h, _) = read(nn.functional.one_hot(ids, len(words)).double())
            logits.append(h.flatten() @ weights["topology.output.1.weight"].T + weights["topology.output.1.bias"])
            truth.append(["long", "short"].index(examples[i].labels[0]))
        share = torch.tensor([len(training) / 2 / count[k] for k in ("long", "short")]).double()
        want = cross_entropy(torch.stack(logits), torch.tensor(truth), share if balance else None)
        # The class weights are float32 numbers.
        torch.testing.assert_close(task.loss(step), want, rtol=1e-6, atol=1e-7)


def test_rare_symbols_are_doubted_in_training_only() -> None:
    config = ClassifyConfig(hidden=4, unknown=1e9, validation=0.3, dropout=0.0)
    task, net, _ = made(
        ClassifyJob(), config, [Example("", list("ab" * n), ["x", "y"][n % 2 : n % 2 + 1]) for n in range(1, 20)]
    )
    batch = task._batches(np.array([3]))
    assert net.model.front(batch).unique().tolist() == [0]
    net.model.eval()
    assert net.model.front(batch).equal(batch.x)
    assert batch.x.unique().tolist() == [1, 2]


def test_validation_counts_every_label_once() -> None:
    config = TagConfig(hidden=4, characters=0, validation=0.4, seed=3)
    examples = [Example("", s, ["N" if w[-1] == "s" else "D" for w in s], s) for s in SENTENCES]
    task, net, data = made(TagJob(), config, examples)
    with torch.no_grad():
        net.model.topology.output[1].weight.zero_()
        net.model.topology.output[1].bias.copy_(torch.tensor([0.0, math.log(3)]))  # D, N: N has 3/4
    labels = [label for i in data.part(VALIDATION) for label in examples[i].labels]
    nouns = labels.count("N")
    found = task.validate()
    assert 0 < nouns < len(labels)
    assert found["accuracy"] == pytest.approx(nouns / len(labels))
    assert found["loss"] == pytest.approx(
        (nouns * math.log(4 / 3) + (len(labels) - nouns) * math.log(4)) / len(labels), rel=1e-6
    )
    assert found["macro F1"] == pytest.approx(2 * nouns / (len(labels) + nouns) / 2)
    assert task.judged.confusion.counts.sum() == len(labels)
    assert task.test() is None


def test_columns_of_words(tmp_path: Path) -> None:
    universal = tmp_path / "a.conllu"
    universal.write_text(
        "# text = don't go\n1-2\tdon't\t_\t_\t_\n1\tdo\tdo\tAUX\tVBP\n2\tn't\tnot\tPART\tRB\n3\tgo\tgo\tVERB\tVB\n"
        "3.1\tnowhere\t_\t_\t_\n\n# text = #\n1\t#\t#\tSYM\tNN\n"
    )
    plain = tmp_path / "b.txt"
    plain.write_text("-DOCSTART- -X- O\n\nEU NNP B-ORG\r\nrejects VBZ O\n\n\nPeter NNP B-PER\n")
    found = list(TagReader(TagConfig()).examples(str(universal), True, True))
    assert [(e.inputs, e.labels) for e in found] == [
        (["do", "n't", "go"], ["AUX", "PART", "VERB"]), (["#"], ["SYM"])
    ]  # fmt: skip
    found = list(TagReader(TagConfig(label="xpos", word="lemma")).examples(str(universal), True, True))
    assert (found[0].inputs, found[0].labels) == (["do", "not", "go"], ["VBP", "RB", "VB"])
    found = list(TagReader(TagConfig()).examples(str(plain), True, True))
    assert [(e.inputs, e.labels, e.place) for e in found] == [
        (["EU", "rejects"], ["B-ORG", "O"], f"{plain}, line 3"), (["Peter"], ["B-PER"], f"{plain}, line 7")
    ]  # fmt: skip
    (found,) = [[e.labels for e in TagReader(TagConfig(label="2")).examples(str(plain), True, True)]]
    assert found == [["NNP", "VBZ"], ["NNP"]]


def test_frames_are_cut_where_a_recording_ends_and_into_windows_for_training(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    rows = [(v, t, t * 2.5, "ab"[t % 2]) for v, n in (("one", 5), ("two", 3)) for t in range(n)]
    file.write_text("video,time,x,phase\n" + "".join(",".join(map(str, row)) + "\n" for row in rows))
    config = TagConfig(sequence="video", drop=("time",), label="phase", window=4)
    cut = list(TagReader(config).examples(str(file), True, True))
    assert [len(e.inputs) for e in cut] == [4, 1, 3]
    whole = list(TagReader(config).examples(str(file), True, False))
    assert [e.inputs[:, 0].tolist() for e in whole] == [[0, 2.5, 5, 7.5, 10], [0, 2.5, 5]]
    assert [e.place for e in whole] == [f"{file}, rows 2 to 6", f"{file}, rows 7 to 9"]
    assert whole[1].labels == ["a", "b", "a"]
    # A window goes on from the one before it, a recording does not.
    changes = [e.inputs[:, 1].tolist() for e in TagReader(config.changed(deltas=True)).examples(str(file), True, True)]
    assert changes == [[0, 2.5, 2.5, 2.5], [2.5], [0, 2.5, 2.5]]


@pytest.mark.parametrize("shares", [{2: 0.0, 1: 0.1}, {2: 0.25, 1: 0.3}, {2: 0.5, 1: 0.4}])
def test_the_parts_are_drawn_by_chance_and_their_shares_are_right(shares: dict[int, float]) -> None:
    draw = Draw(shares, 1)
    parts = np.array([draw() for _ in range(2000)])
    for part, share in shares.items():
        taken = np.cumsum(parts == part)
        assert np.abs(taken - share * np.arange(1, 2001)).max() <= 3
        if 0 < share < 0.5:
            gaps = np.diff(np.flatnonzero(parts == part))
            assert len(set(gaps.tolist())) > 3
    again = Draw(shares, 1)
    assert parts.tolist() == [again() for _ in range(2000)]


def test_a_window_is_filled_from_the_one_before_it(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text(
        "video,x,label\n" + "".join(f"{v},{x},a\n" for v, x in zip("ooooot", ["", 1, 2, "", 5, ""], strict=True))
    )
    config = TagConfig(sequence="video", fill="previous", window=3, deltas=True)
    found = [e.inputs.tolist() for e in TagReader(config).examples(str(file), True, True)]
    nan = math.nan  # what nothing comes before is left to the mean
    np.testing.assert_array_equal(np.array(found[0]), [[nan, nan], [1, nan], [2, 1]])
    assert found[1] == [[2, 0], [5, 3]]
    np.testing.assert_array_equal(np.array(found[2]), [[nan, nan]])
