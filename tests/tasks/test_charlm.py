import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, one_hot

from cellwright import DataError, OptionError
from cellwright.tasks.charlm import task as charlm
from cellwright.tasks.charlm import text as text_module
from cellwright.tasks.charlm.config import CharLMConfig
from cellwright.tasks.charlm.job import CharLMJob
from cellwright.tasks.charlm.model import CharModel, definitions
from cellwright.tasks.charlm.state import flatten
from cellwright.tasks.charlm.task import CharLM, evaluate
from cellwright.tasks.charlm.text import Corpus
from cellwright.tasks.data.tokens import vocabulary_of
from cellwright.tasks.data.vocabulary import Vocabulary

TEXT = "the quick brown fox jumps over the lazy dog\n" * 30


def config(**values: Any) -> CharLMConfig:
    return CharLMConfig.checked({"hidden": 8, "layers": 2, "batch": 4, "chunk": 7, "steps": 20, **values})


def build(settings: CharLMConfig, text: str = TEXT) -> CharLM:
    vocabulary = Vocabulary.build(text, settings.level)
    cells, embed = definitions(settings, len(vocabulary))
    torch.manual_seed(settings.seed)
    model = CharModel(
        cells, len(vocabulary), embed=embed, tie=settings.tie, dropout=settings.dropout, **settings.wrappers
    )
    corpus = Corpus()
    corpus.add(text)
    return CharLM(settings, model, vocabulary, corpus.close())


def test_the_losses_are_those_of_the_same_model_in_torch() -> None:
    settings = config()
    task = build(settings)
    symbols = task.model.output.out_features
    lstm = nn.LSTM(symbols, 8, 2)
    lstm.load_state_dict({k.removeprefix("recurrent."): v for k, v in task.model.recurrent.state_dict().items()})
    linear = nn.Linear(8, symbols)
    linear.load_state_dict(task.model.output.state_dict())
    ids = torch.from_numpy(Vocabulary.build(TEXT).encode(TEXT).astype(np.int64))[: task.training_count]
    length = (len(ids) - 1) // 4
    chunks = length // 7
    state = None
    for step in range(2 * chunks + 1):
        k = step % chunks
        rows = torch.stack([ids[b * length + 7 * k : b * length + 7 * k + 8] for b in range(4)], 1)
        output, state = lstm(one_hot(rows[:-1], symbols).float(), state if k else None)
        expected = cross_entropy(linear(output).flatten(0, 1), rows[1:].flatten())
        torch.testing.assert_close(task.loss(step), expected)


@pytest.mark.parametrize("level", ["char", "byte", "word", "bpe"])
@pytest.mark.parametrize("size", [5, 2**20])
def test_the_parts_are_those_of_the_text_in_memory(level: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "_PIECE", size)
    text, settings = "Ünder the sea, 日本 \r\n" * 90 + "a😀", config(level=level)
    corpus = Corpus()
    for k in range(0, len(text), 3):
        corpus.add(text[k : k + 3])
    corpus.close()
    job = CharLMJob()
    torch.manual_seed(1)
    net = job.build(settings, job.learn(settings, corpus))
    task = job.task(settings, net, corpus)
    count = len(text.encode()) if level == "byte" else len(text)
    last = count - round(count * 0.05)
    middle = last - round(count * 0.05)
    whole: Any = text.encode() if level == "byte" else text
    parts = [whole[:middle], whole[middle:last], whole[last:]]
    ids = [np.frombuffer(p, np.uint8) if level == "byte" else net.vocabulary.encode(p) for p in parts]
    if level in ("word", "bpe"):
        assert net.vocabulary.to_json() == vocabulary_of(parts[0], level, None).to_json()
    for got, want in ((task.validation_ids, ids[1]), (task.test_ids, ids[2])):
        assert got.dtype == want.dtype and got.tolist() == want.tolist()
    length = (len(ids[0]) - 1) // 4
    assert task.streams.chunks == length // 7
    for k in range(task.streams.chunks):
        rows = np.stack([ids[0][b * length + 7 * k : b * length + 7 * k + 8] for b in range(4)], 1).astype(np.int64)
        x, y = task.streams(k)
        assert x.tolist() == rows[:-1].tolist() and y.tolist() == rows[1:].tolist()
        assert x.is_contiguous() and y.is_contiguous()
    if level in ("word", "bpe"):
        found = task.test()
        assert found is not None
        bits = found["loss"] / math.log(2) * len(ids[2])
        if level == "word":  # an unknown one is written in bytes, with one more for its end
            new = [w for w in re.findall(r" ?\w+| ?[^\w\s]|\s", parts[2]) if w not in net.vocabulary.tokens]
            assert new
            bits += sum(8 * (len(w.encode()) + 1) for w in new)
        assert found["bits per character"] == pytest.approx(bits / len(parts[2]), rel=1e-12)


def test_the_gradient_stops_at_the_beginning_of_a_chunk() -> None:
    task = build(config())
    task.loss(0)
    assert all(not t.requires_grad for t in task.carried().values())


def test_the_state_goes_on_within_an_epoch_and_starts_anew_with_the_next() -> None:
    task, fresh = build(config()), build(config())
    first = task.loss(0)
    second = task.loss(1)
    carried = task.carried()
    assert carried.keys() == {"state.0.0", "state.0.1", "state.1.0", "state.1.1"}
    assert fresh.loss(1).item() != second.item()
    again = task.loss(task.streams.chunks)
    assert again.item() == first.item()
    fresh.carry(carried)
    task.carry(carried)
    assert fresh.loss(2).item() == task.loss(2).item()


def brute_force(model: CharModel, ids: np.ndarray) -> float:
    """-ln p of every id but the first, one step at a time."""
    total, state = 0.0, None
    with torch.no_grad():
        for now, following in zip(ids[:-1].tolist(), ids[1:].tolist(), strict=True):
            logits, state = model(torch.tensor([[now]]), state)
            total -= logits[0, 0].double().log_softmax(0)[following].item()
    return total


def test_evaluation_is_the_sum_over_every_symbol() -> None:
    task = build(config(dropout=0.5))
    ids = task.validation_ids
    result = evaluate(task.model, ids)
    assert result.count == len(ids) - 1
    assert result.total == pytest.approx(brute_force(task.model.eval(), ids), rel=1e-6)
    assert result.nats == result.total / result.count


def test_a_long_text_is_evaluated_in_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charlm, "_EVALUATION_STREAM", 1000)
    task = build(config())
    rng = np.random.default_rng(1)
    ids = rng.integers(0, task.model.output.out_features, 3001)
    # Three streams, each with a zero state at its beginning.
    parts = [ids[i * 1000 : i * 1000 + 1001] for i in range(3)]
    expected = sum(brute_force(task.model, part) for part in parts)
    assert evaluate(task.model, ids).total == pytest.approx(expected, rel=1e-6)


def test_one_symbol_cannot_be_evaluated() -> None:
    with pytest.raises(DataError, match="at least 2"):
        evaluate(build(config()).model, np.zeros(1, np.uint8))


def test_an_untrained_model_is_near_chance() -> None:
    task = build(config())
    for found in (task.validate(), task.test()):
        assert found == {"loss": pytest.approx(math.log(task.model.output.out_features), rel=0.1)}
    assert build(config(test=0.0)).test() is None
    assert task.measures(math.log(2)) == {"bits": 1.0}


def test_the_seed_decides_the_weights() -> None:
    one, same, other = (build(config(seed=s)).model.state_dict() for s in (1, 1, 2))
    assert all(t.equal(same[name]) for name, t in one.items())
    assert not any(t.equal(other[name]) for name, t in one.items())


def test_tied_weights_are_one_tensor() -> None:
    model = build(config(tie=True)).model
    assert model.embed is not None
    assert model.embed.weight is model.output.weight
    assert model.embed.embedding_dim == 8
    untied = build(config(embed=8)).model
    difference = sum(p.numel() for p in untied.parameters()) - sum(p.numel() for p in model.parameters())
    assert difference == model.embed.weight.numel()
    with pytest.raises(OptionError, match="leave --embed away"):
        build(config(tie=True, embed=5))


def test_the_sizes_follow_from_the_cell() -> None:
    cells, embed = definitions(config(options={"proj_size": 3}, tie=True), 20)
    assert embed == 3
    assert [(cell.input_size, cell.output_size) for cell in cells] == [(3, 3), (3, 3)]
    cells, embed = definitions(config(cell="gru", embed=5), 20)
    assert embed == 5
    assert [(cell.input_size, cell.output_size) for cell in cells] == [(5, 8), (8, 8)]


@pytest.mark.parametrize("layers", [1, 2])
def test_dropout_acts_in_training_only(layers: int) -> None:
    model = build(config(dropout=0.5, layers=layers, embed=4)).model
    ids = torch.arange(6).reshape(3, 2)
    assert not model(ids)[0].equal(model(ids)[0])
    model.eval()
    assert model(ids)[0].equal(model(ids)[0])


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("level", ["char", "byte"])
def test_every_cell_and_level_trains(cell: str, level: str) -> None:
    task = build(config(cell=cell, level=level, embed=3))
    optimizer = torch.optim.Adam(task.model.parameters(), 0.03)
    losses = []
    for step in range(60):
        optimizer.zero_grad()
        loss = task.loss(step)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert task.unit == {"char": "character", "byte": "byte"}[level]
    assert all(t.shape == (1, 4, 8) for t in flatten(task.model(torch.zeros(1, 4, dtype=torch.int64))[1]).values())


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"batch": 1000}, ("1320 characters", "--batch 1000", "smaller --batch or --chunk")),
        ({"validation": 0.0005}, ("--validation 0.0005", "at least 2")),
        ({"test": 0.0005}, ("--test 0.0005", "at least 2")),
    ],
)
def test_a_text_that_is_too_short_says_what_to_do(values: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(DataError) as caught:
        build(config(**values))
    assert all(word in str(caught.value) for word in words)


def test_the_number_that_is_needed_is_enough() -> None:
    with pytest.raises(DataError) as caught:
        build(config(), "ab" * 10)
    needed = int(str(caught.value).split("about ")[1].split()[0])
    build(config(validation=0.1, test=0.1), "ab" * needed)
    with pytest.raises(DataError):
        build(config(), "a" * (needed - 5))


def test_wrappers_act_in_training_only_and_in_the_stepper_on_average() -> None:
    model = build(config(recurrent_dropout=0.3, zoneout=0.3, weight_drop=0.3)).model
    ids = torch.randint(0, 5, (6, 1))
    assert not torch.equal(model(ids)[0], model(ids)[0])
    model.eval()
    want = model(ids)[0]
    assert torch.equal(model(ids)[0], want)
    step = model.stepper()
    for t in range(6):
        step.ids.copy_(ids[t])
        assert torch.allclose(step.step(), want[t], atol=1e-5)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"hidden": 0}, "--hidden 0"),
        ({"hidden": "big"}, "--hidden big"),
        ({"hidden": True}, "--hidden True"),
        ({"dropout": 1.0}, "--dropout 1.0"),
        ({"recurrent_dropout": -0.1}, "--recurrent-dropout -0.1"),
        ({"lr": math.nan}, "--lr nan"),
        ({"lr": 0.0}, "--lr 0.0"),
        ({"eval_every": 0}, "--eval-every 0"),
        ({"level": "line"}, "--level line"),
        ({"decay": "linear"}, "--decay linear"),
        ({"validation": 0.5, "test": 0.5}, "no text for training"),
        ({"warmup": 21}, "--warmup 21 is longer"),
        ({"seed": -1}, "--seed -1"),
        ({"colour": 1}, "the setting 'colour', expected one of hidden, layers"),
    ],
)
def test_impossible_settings_are_named(values: dict[str, Any], word: str) -> None:
    with pytest.raises(OptionError) as caught:
        config(**values)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_warm_up_follows_the_length() -> None:
    assert [config(steps=n).warmup_steps for n in (5, 500, 5000)] == [0, 50, 100]
    assert config(warmup=3).warmup_steps == 3
    assert config().with_steps(900).steps == 900
