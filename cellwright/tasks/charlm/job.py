"""The character model: predict the next symbol of a text, one symbol after the other.

    x_t = one_hot(s_t) or E s_t          symbol to vector
    h_t = recurrent(x_t, h_{t-1})        any cell, any number of layers
    p(s_{t+1} | s_1 ... s_t) = softmax(W h_t + b)

Trained by truncated back-propagation through time: the state goes on from chunk to chunk, its gradient does not.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ...cells import find
from ...convert import to_onnx
from ...errors import DataError, OptionError
from ...lang import Definition
from ...nn import Recurrent, stepper
from ..data.tokens import LIMITS, Symbols, Words, vocabulary_from, vocabulary_of
from ..job import Found, Job, layer_line
from .config import CharLMConfig
from .generate import generate
from .state import State, detach, flatten, unflatten
from .streams import IGNORE, Streams, evaluation_chunks, split
from .text import Corpus, read

PER_CHARACTER = "bits per character"
VALIDATION_LIMIT = 100_000  # symbols looked at by the evaluations during the training
_EVALUATION_STREAM = 4000  # symbols per stream at least: each stream begins without any context
_EVALUATION_STREAMS = 64
_EVALUATION_CHUNK = 256
_EVALUATION_LOGITS = 2**24  # numbers in memory at once


class CharModel(nn.Module):
    """Ids [T, B] to the logits of the next ids [T, B, V].

    `definitions`: one cell per layer. `symbols`: V. `embed`: size of the embedding, 0 for one-hot input. `tie`: the
    output's weight is the embedding's, whose size must be that of the last layer's output. `dropout`: on the
    embedding, between the layers and before the output. `wrappers`: keywords of `Recurrent`, such as zoneout=0.1.
    """

    def __init__(
        self,
        definitions: Sequence[Definition],
        symbols: int,
        *,
        embed: int = 0,
        tie: bool = False,
        dropout: float = 0.0,
        **wrappers: Any,
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(symbols, embed) if embed else None
        # Between layers: with one of them there is no such place, and Recurrent warns of that.
        self.recurrent = Recurrent(list(definitions), dropout=dropout if len(definitions) > 1 else 0.0, **wrappers)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(definitions[-1].output_size, symbols)
        if tie:
            if self.embed is None or embed != self.output.in_features:
                raise OptionError(f"a tied output needs an embedding of size {self.output.in_features}, not {embed}")
            # The output's initial values are the ones to keep: those of an embedding would saturate the softmax.
            self.embed.weight = self.output.weight

    def forward(self, ids: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`ids` int64 [T, B] and the state before them to logits [T, B, V] and the state after them."""
        x = ids if self.embed is None else self.dropout(self.embed(ids))
        output, state = self.recurrent(x, state)  # [T, B, O]
        return self.output(self.dropout(output)), state

    def to_onnx(self, path: Path | None = None) -> Any:
        """The model in evaluation mode as an ONNX model (`convert.to_onnx`): ids int64 [T, B] to logits [T, B, V]."""
        symbols = None if self.embed is None else self.embed.weight
        return to_onnx(self.recurrent, path, integer=True, symbols=symbols, output=self.output)

    def stepper(self, state: State | None = None, streams: int = 1) -> Any:
        """The model in evaluation mode as one compiled step per symbol (`nn.stepper`), from the weights as they are
        now; None where it only goes layer by layer."""
        symbols = None if self.embed is None else self.embed.weight
        return stepper(self.recurrent, self.output, symbols=symbols, state=state, streams=streams)


def definitions(config: CharLMConfig, symbols: int) -> tuple[list[Definition], int]:
    """The cells of the layers, and the size of the embedding. OptionError: unknown cell or option, or a wrong size."""
    cell = find(config.cell)
    options: dict[str, Any] = config.options
    wanted = config.embed
    if wanted is None:
        wanted = config.hidden if config.level in LIMITS else 0
    # The size of a cell's output does not depend on that of its input (which some cells want to be the same).
    output = cell(wanted or config.hidden, config.hidden, **options).definition().output_size
    if config.tie and config.embed not in (0, None, output):
        raise OptionError(
            f"--embed {config.embed} does not go with --tie: the output's weight is the embedding's, so that its size "
            f"is {output}; leave --embed away"
        )
    embed = output if config.tie else wanted
    inputs = [embed or symbols] + [output] * (config.layers - 1)
    return [cell(size, config.hidden, **options).definition() for size in inputs], embed


def unit_of(vocabulary: Symbols) -> str:
    """What is counted."""
    return {"char": "character", "byte": "byte"}.get(vocabulary.level, "token")


@dataclass(frozen=True)
class Evaluation:
    """The sum of -ln p over `count` predicted symbols."""

    total: float
    count: int

    @property
    def nats(self) -> float:
        """-ln p per symbol."""
        return self.total / self.count


@torch.no_grad()
def evaluate(model: CharModel, ids: NDArray[Any]) -> Evaluation:
    """How well the model, put into evaluation mode, predicts each of `ids` [N] but the first. DataError: N < 2."""
    if len(ids) < 2:
        raise DataError(f"a text of {len(ids)} symbol(s) has nothing to predict; at least 2 are needed")
    model.eval()
    device = next(model.parameters()).device
    streams = min(_EVALUATION_STREAMS, max(1, len(ids) // _EVALUATION_STREAM))
    chunk = max(1, min(_EVALUATION_CHUNK, _EVALUATION_LOGITS // (streams * model.output.out_features)))
    total = torch.zeros((), dtype=torch.float64, device=device)
    state: State | None = None
    for x, y in evaluation_chunks(ids, streams, chunk):
        logits, state = model(x.to(device), state)
        target = y.to(device).flatten()
        losses = cross_entropy(logits.flatten(0, 1), target, reduction="none", ignore_index=IGNORE)
        total += losses.sum(dtype=torch.float64)
    return Evaluation(total.item(), len(ids) - 1)


class CharLM:
    """The task that the training loop sees: a model, its text, and the state carried from chunk to chunk."""

    quantity = "nats"

    def __init__(self, config: CharLMConfig, model: CharModel, vocabulary: Symbols, text: str) -> None:
        """`text`: the whole one. DataError: it is too short for one chunk, one validation and one test symbol."""
        self.model = model
        self.unit = unit_of(vocabulary)
        parts = split(text, config.validation, config.test)
        if vocabulary.level == "byte":
            training, self.validation_ids, self.test_ids = split(
                vocabulary.encode(text), config.validation, config.test
            )
        else:
            training, self.validation_ids, self.test_ids = map(vocabulary.encode, parts)
        self.tokens = vocabulary.level in LIMITS
        self._per_character = [
            len(ids) / max(len(part), 1)
            for ids, part in zip((self.validation_ids, self.test_ids), parts[1:], strict=True)
        ]
        total = len(training) + len(self.validation_ids) + len(self.test_ids)
        _long_enough(config, total, self.unit, len(training), len(self.validation_ids), len(self.test_ids))
        self.training_count = len(training)
        self.streams = Streams(training, config.batch, config.chunk)
        self.per_step = config.batch * config.chunk
        self._device = next(model.parameters()).device
        self._state: State | None = None
        self.reading = 0.0

    def loss(self, step: int) -> Tensor:
        """Mean -ln p over the chunk of step 0, 1, ...: a scalar with a gradient. An epoch begins with a zero state."""
        k = step % self.streams.chunks
        began = time.perf_counter()
        x, y = (ids.to(self._device) for ids in self.streams(k))
        self.reading += time.perf_counter() - began
        logits, state = self.model(x, self._state if k else None)
        self._state = detach(state)
        return cross_entropy(logits.flatten(0, 1), y.flatten())

    def carried(self) -> dict[str, Tensor]:
        """The state to go on with, as tensors by name."""
        return {} if self._state is None else flatten(self._state)

    def carry(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on with the state of `carried`."""
        self._state = unflatten(tensors) if tensors else None

    def validate(self) -> dict[str, float]:
        """Nats per symbol on the validation text, or on its beginning if that is long."""
        return self._measured(evaluate(self.model, self.validation_ids[: VALIDATION_LIMIT + 1]).nats, 0)

    def test(self) -> dict[str, float] | None:
        """Nats per symbol on the whole test text; None if there is none."""
        return self._measured(evaluate(self.model, self.test_ids).nats, 1) if len(self.test_ids) else None

    def _measured(self, nats: float, part: int) -> dict[str, float]:
        """Of words and pieces also the bits per character, by which levels compare."""
        return {
            "loss": nats,
            **({PER_CHARACTER: nats / math.log(2) * self._per_character[part]} if self.tokens else {}),
        }

    def last_losses(self, count: int, steps: int) -> Tensor:
        """-ln p [B] of what follows on pieces of so many symbols. DataError: the validation text is too short."""
        ids = torch.from_numpy(self.validation_ids.astype("int64"))
        if len(ids) < steps + 1:
            raise DataError(f"the validation text has {len(ids)} symbols, expected at least {steps + 1}; ask for fewer")
        starts = torch.linspace(0, len(ids) - steps - 1, count).long()
        pieces = ids[starts + torch.arange(steps + 1).unsqueeze(1)].to(self._device)  # [T + 1, B]
        logits, _ = self.model(pieces[:-1])
        return cross_entropy(logits[-1], pieces[-1], reduction="none")

    def measures(self, loss: float) -> dict[str, float]:
        """The loss in other units."""
        return {"perplexity": math.exp(min(loss, 700))} if self.tokens else {"bits": loss / math.log(2)}


def _long_enough(config: CharLMConfig, total: int, unit: str, training: int, validation: int, test: int) -> None:
    needed = config.batch * config.chunk + 1
    if training < needed:
        whole = math.ceil(needed / (1 - config.validation - config.test))
        raise DataError(
            f"the text has {total} {unit}s, and about {whole} are needed: --batch {config.batch} times --chunk "
            f"{config.chunk} for one step of training, and the parts for validation and test; give more text, or a "
            f"smaller --batch or --chunk"
        )
    for name, count, fraction in (("validation", validation, config.validation), ("test", test, config.test)):
        if fraction and count < 2:
            raise DataError(
                f"--{name} {fraction} of a text of {total} {unit}s is {count}, and at least 2 are needed; give more "
                f"text, or a larger --{name}"
            )


@dataclass(frozen=True)
class Net:
    """A character model and the symbols that it knows."""

    model: CharModel
    vocabulary: Symbols


class CharLMJob(Job):
    """The character model for the commands."""

    config = CharLMConfig
    scales = (("bits", PER_CHARACTER),)
    writes = ("prompt", "length", "temperature", "top_k", "top_p", "min_p", "stop")

    def read(self, config: CharLMConfig) -> Corpus:
        """The whole text."""
        return read(config.texts, config.glob)

    def learn(self, config: CharLMConfig, data: Corpus) -> dict[str, Any]:
        """The vocabulary and the cells."""
        text = data.text
        if config.level in LIMITS:  # what a word is, is learned like the rest, from the training text
            text = split(text, config.validation, config.test)[0]
        vocabulary = vocabulary_of(text, config.level, config.vocabulary)
        cells, embed = definitions(config, len(vocabulary))
        layers = [cell.to_json() for cell in cells]
        return {"vocabulary.json": vocabulary.to_json(), "cells.json": {"embed": embed, "layers": layers}}

    def build(self, config: CharLMConfig, documents: Mapping[str, Any]) -> Net:
        """The model, which needs no file of cells any more."""
        vocabulary = vocabulary_from(documents["vocabulary.json"])
        embed, layers = documents["cells.json"]["embed"], documents["cells.json"]["layers"]
        cells = [Definition.from_json(layer) for layer in layers]
        model = CharModel(
            cells, len(vocabulary), embed=embed, tie=config.tie, dropout=config.dropout, **config.wrappers
        )
        return Net(model, vocabulary)

    def task(self, config: CharLMConfig, net: Net, data: Corpus) -> CharLM:
        """The text in streams."""
        return CharLM(config, net.model, net.vocabulary, data.text)

    def facts(self, config: CharLMConfig, net: Net, data: Corpus, task: CharLM) -> dict[str, list[str]]:
        """Model, text and split."""
        embed = net.model.embed
        inputs = "one-hot input" if embed is None else f"embedding of {embed.embedding_dim}"
        checked = min(len(task.validation_ids), VALIDATION_LIMIT)
        return {
            "model": layer_line(
                config,
                net.model,
                inputs,
                "tied output" if config.tie else "",
                *(f"{name.replace('_', ' ')} {rate:g}" for name, rate in config.wrappers.items()),
            ),
            "text": [
                f"{len(data.text):,} characters",
                f"{len(net.vocabulary)} symbols",
                "" if config.texts else "the source of Python's library",
                f"{data.files} file{'s' if data.files != 1 else ''}",
                data.note,
            ],
            "split": [
                f"{task.training_count:,} {task.unit}s to train on",
                f"{len(task.validation_ids):,} for validation (the first {checked:,} at each evaluation)",
                f"{len(task.test_ids):,} for the test",
            ],
            "plan": [
                f"{config.steps} steps of {config.batch} x {config.chunk} {task.unit}s",
                f"{config.steps / task.streams.chunks:.1f} epochs",
            ],
        }

    def sample(self, config: CharLMConfig, net: Net, step: int) -> str | None:
        """A text of --sample-length symbols."""
        if not config.sample_length:
            return None
        return "".join(generate(net.model, net.vocabulary, length=config.sample_length, seed=config.seed + step))

    def loss_words(self, task: CharLM, measured: Mapping[str, float]) -> str:
        """Nats and bits."""
        loss = measured["loss"]
        if task.tokens:
            more = f", {measured[PER_CHARACTER]:.4f} {PER_CHARACTER}" if PER_CHARACTER in measured else ""
            return f"{loss:.4f} nats per {task.unit}, perplexity {math.exp(min(loss, 700)):.2f}{more}"
        return f"{loss:.4f} nats, {loss / math.log(2):.4f} bits per {task.unit}"

    def after(self, run: str) -> str:
        """How to let it write."""
        return f"the run is in {run}; let it write with:\n  cellwright generate {run}"

    def last_losses(self, task: CharLM, count: int, steps: int | None) -> tuple[Recurrent, Callable[[], Tensor]]:
        """Those of the last symbols of pieces of the validation text, as long as a chunk if nothing else is said."""
        return task.model.recurrent, partial(task.last_losses, count, steps or task.streams.chunk)

    def evaluate(self, config: CharLMConfig, net: Net, paths: Sequence[str], **options: Any) -> Found:
        """Nats and bits per character of a text; `glob`: which files of a folder."""
        corpus = read(paths, options.get("glob", "*"))
        ids = net.vocabulary.encode(corpus.text)
        nats = evaluate(net.model, ids).nats
        text, numbers = f"{len(corpus.text):,} characters", {"loss": nats}
        if config.level != "char":
            unit = unit_of(net.vocabulary)
            first = f"{len(ids):,} {unit}s, {nats:.4f} nats and {nats / math.log(2):.4f} bits per {unit}"
            if config.level in LIMITS:
                first += f", perplexity {math.exp(min(nats, 700)):.2f}"
            if isinstance(net.vocabulary, Words):
                spelled = 8 * net.vocabulary.unknown_bytes(corpus.text) + nats * len(ids) / math.log(2)
                first += (
                    f"\n{(ids == 0).mean():.2%} of the tokens are <unk>, whose letters do not count below; at 8 bits "
                    f"for each of their bytes it is {spelled / len(corpus.text):.4f} bits per character"
                )
            text = f"{first}\n{text}"
            nats *= len(ids) / len(corpus.text)
        note = f"\n{corpus.note}" if corpus.note else ""
        return Found(f"{text}, {nats:.4f} nats and {nats / math.log(2):.4f} bits per character{note}", numbers)

    def generate(self, config: CharLMConfig, net: Net, seed: int, prompt: str = "", **options: Any) -> Iterator[str]:
        """A prompt, and what follows it; `options`: those of `generate.generate`."""
        return chain([prompt], generate(net.model, net.vocabulary, prompt, seed=seed, **options))


JOB = CharLMJob()
