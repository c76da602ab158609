import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cellwright
from cellwright import DataError, OptionError
from cellwright.app.runs import load
from cellwright.tasks.charlm.generate import generate, probabilities

LOGITS = st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=12)
NEAR = 1e-9  # two ways of summing may differ by that much: such a case decides nothing


def brute_force(
    logits: list[float], temperature: float, top_k: int | None, top_p: float | None, min_p: float | None
) -> list[float] | None:
    """The definition, on plain floats; None: a border case."""
    largest = max(logits)
    p = [math.exp((value - largest) / temperature) for value in logits]
    order = sorted(range(len(p)), key=lambda i: (-p[i], i))
    if top_k is not None:
        order = order[:top_k]
    if top_p is not None:
        whole, share, kept = sum(p[i] for i in order), 0.0, []
        for i in order:
            if abs(share - top_p) < NEAR:
                return None
            if share < top_p:
                kept.append(i)
            share += p[i] / whole
        order = kept
    if min_p is not None:
        if any(abs(p[i] / p[order[0]] - min_p) < NEAR for i in order[1:]):
            return None
        order = [i for i in order if p[i] / p[order[0]] >= min_p]
    whole = sum(p[i] for i in order)
    return [p[i] / whole if i in order else 0.0 for i in range(len(p))]


@given(
    LOGITS,
    st.floats(0.05, 5),
    st.none() | st.integers(1, 15),
    st.none() | st.floats(0.01, 1),
    st.none() | st.floats(0, 1),
)
def test_the_filters_do_what_they_say(
    logits: list[float], temperature: float, top_k: int | None, top_p: float | None, min_p: float | None
) -> None:
    expected = brute_force(logits, temperature, top_k, top_p, min_p)
    if expected is not None:
        got = probabilities(torch.tensor(logits, dtype=torch.float64), temperature, top_k, top_p, min_p)
        assert got.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(LOGITS)
def test_no_temperature_means_no_chance(logits: list[float]) -> None:
    expected = [0.0] * len(logits)
    expected[logits.index(max(logits))] = 1.0
    assert probabilities(torch.tensor(logits), 0).tolist() == expected


@pytest.mark.parametrize("temperature", [1e-300, 1e-30, 1e30])
def test_extreme_temperatures_stay_finite(temperature: float) -> None:
    p = probabilities(torch.tensor([1.0, 80.0, 80.0, -80.0]), temperature, top_p=0.9)
    assert p.isfinite().all()
    assert p.sum().item() == pytest.approx(1)


def write(run: Path, prompt: str = "", **options: Any) -> str:
    loaded = load(run)
    return "".join(generate(loaded.net.model, loaded.net.vocabulary, prompt, **options))


def test_the_text_is_the_same_on_every_target(char_run: Path) -> None:
    for options in ({}, {"temperature": 0.0}, {"temperature": 1.3}, {"top_k": 3, "temperature": 2.0}):
        text = write(char_run, "def ", length=120, seed=1, **options)
        with cellwright.use_target("torch"):
            assert write(char_run, "def ", length=120, seed=1, **options) == text


def test_the_seed_decides_the_text(char_run: Path) -> None:
    one = write(char_run, "def ", length=200, seed=1)
    assert len(one) == 200
    assert write(char_run, "def ", length=200, seed=1) == one
    assert write(char_run, "def ", length=200, seed=2) != one
    assert write(char_run, "def ", length=200) != write(char_run, "def ", length=200)


def test_a_longer_text_begins_like_the_shorter_one(char_run: Path) -> None:
    assert write(char_run, "de", length=90, seed=1)[:40] == write(char_run, "de", length=40, seed=1)
    assert write(char_run, "de", length=0) == ""


def test_the_prompt_is_read_as_a_whole(char_run: Path) -> None:
    """Greedy: what follows a prompt is what follows the same text read step by step."""
    loaded = load(char_run)
    ids = loaded.net.vocabulary.encode("def f1(x):\n").tolist()
    state, logits = None, torch.empty(0)
    with torch.no_grad():
        for symbol in ids:
            logits, state = loaded.net.model(torch.tensor([[symbol]]), state)
    first = loaded.net.vocabulary.symbols[int(logits[0, 0].argmax())]
    assert write(char_run, "def f1(x):\n", length=1, temperature=0) == first


def test_without_a_prompt_it_begins_after_a_newline(char_run: Path) -> None:
    assert write(char_run, length=60, seed=3) == write(char_run, "\n", length=60, seed=3)


def test_the_draw_follows_the_probabilities(char_run: Path) -> None:
    loaded = load(char_run)
    with torch.no_grad():
        logits, _ = loaded.net.model(torch.tensor([[loaded.net.vocabulary.start]]))
    p = probabilities(logits[0, 0], 1.0, top_k=3)
    drawn = [write(char_run, length=1, temperature=1.0, top_k=3, seed=s) for s in range(10)]
    assert set(drawn) <= {loaded.net.vocabulary.symbols[i] for i in p.nonzero().flatten().tolist()}


def test_it_is_not_in_inference_mode_between_two_symbols(char_run: Path) -> None:
    loaded = load(char_run)
    pieces = generate(loaded.net.model, loaded.net.vocabulary, length=3)
    next(pieces)
    assert not torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()


def test_it_does_not_touch_the_global_chance(char_run: Path) -> None:
    loaded = load(char_run)
    before = torch.get_rng_state()
    list(generate(loaded.net.model, loaded.net.vocabulary, length=20))
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize("kind", ["char_run", "byte_run"])
def test_stop_ends_with_the_text(kind: str, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(kind)
    whole = write(run, length=300, seed=5, temperature=1.2)
    stops = {whole[10:12], whole[40:43]}
    first = min(whole.index(stop) + len(stop) for stop in stops)
    assert write(run, length=300, seed=5, temperature=1.2, stop=tuple(stops)) == whole[:first]
    assert write(run, length=300, seed=5, temperature=1.2, stop=("never there",)) == whole


def test_bytes_come_as_whole_characters(byte_run: Path) -> None:
    loaded = load(byte_run)
    pieces = list(generate(loaded.net.model, loaded.net.vocabulary, "ä😀", length=400, temperature=1.5, seed=1))
    assert all(pieces)
    text = "".join(pieces)
    assert 100 < len(text) < 400
    text.encode("utf-8")


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_p": math.nan},
        {"min_p": -0.1},
        {"min_p": 1.1},
        {"length": -1},
        {"stop": ("",)},
    ],
)
def test_impossible_values_are_refused_before_the_first_symbol(char_run: Path, options: dict[str, Any]) -> None:
    loaded = load(char_run)
    with pytest.raises(OptionError, match="--" + next(iter(options)).replace("_", "-")):
        generate(loaded.net.model, loaded.net.vocabulary, **options)


def test_a_prompt_outside_the_vocabulary_is_named(char_run: Path) -> None:
    loaded = load(char_run)
    with pytest.raises(DataError, match=r"the prompt has characters outside .* '\\u20ac' \(2 times\)"):
        generate(loaded.net.model, loaded.net.vocabulary, "def €€")


def test_a_model_in_training_is_put_into_evaluation(char_run: Path) -> None:
    loaded = load(char_run)
    loaded.net.model.train()
    list(generate(loaded.net.model, loaded.net.vocabulary, length=1))
    assert not loaded.net.model.training


Cli = Callable[..., Any]


def test_the_command_writes_prompt_and_text(cli: Cli, char_run: Path) -> None:
    result = cli("generate", char_run, "--prompt", "def ", "--length", 50, "--seed", 4)
    assert result.code == 0
    assert result.out == "def " + write(char_run, "def ", length=50, seed=4).removesuffix("\n") + "\n"
    assert result.err == ""


def test_the_command_says_which_seed_it_chose(cli: Cli, char_run: Path) -> None:
    result = cli("generate", char_run, "--length", 80)
    seed = result.err.removeprefix("seed ").strip()
    assert cli("generate", char_run, "--length", 80, "--seed", seed).out == result.out


def test_the_last_weights_are_others(cli: Cli, char_run: Path) -> None:
    best = cli("generate", char_run, "--seed", 1, "--temperature", 2)
    assert load(char_run, "last").net.model.output.weight.isfinite().all()
    (char_run / "best.safetensors").unlink()
    assert cli("generate", char_run, "--seed", 1).code == 2
    last = cli("generate", char_run, "--seed", 1, "--temperature", 2, "--last")
    assert last.code == 0
    # The last evaluation of this run was the best one.
    assert last.out == best.out
