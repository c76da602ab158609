"""The character model for the commands: from a text to a net that writes, and how well it does."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

from torch import Tensor

from ...lang import Definition
from ...nn import Recurrent
from ..data.tokens import LIMITS, UNKNOWN, Symbols, Words, vocabulary_from, vocabulary_of
from ..job import Found, Job, layer_line
from .config import CharLMConfig
from .generate import generate
from .model import CharModel, definitions
from .streams import cuts, stored
from .task import PER_CHARACTER, VALIDATION_LIMIT, CharLM, Spelling, evaluate, unit_of
from .text import Corpus, read


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
        stop = None
        if config.level in LIMITS:  # what a word is, is learned like the rest, from the training text
            stop, _ = cuts(data.characters, config.validation, config.test)
        vocabulary = vocabulary_of(data.pieces(0, stop), config.level, config.vocabulary)
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
        return CharLM(config, net.model, net.vocabulary, data)

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
                f"{data.characters:,} characters",
                f"{len(net.vocabulary)} symbols",
                "" if config.texts else "the source of Python's library",
                f"{data.files} file{'s' if data.files != 1 else ''}",
                data.note,
            ],
            "split": [
                f"{task.training_count:,} {task.unit}s to train on",
                f"{len(task.validation_ids):,} for validation (the first {checked:,} at each evaluation)",
                f"{len(task.test_ids):,} for the test",
                task.spelling[0].words("validation tokens"),
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
            bits = measured.get(PER_CHARACTER, task.spelling[0].bits(loss))  # of the best validation the loss is kept
            return f"{loss:.4f} nats per {task.unit}, {_perplexity(loss, task.words)}, {bits:.4f} {PER_CHARACTER}"
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
        ids = stored(net.vocabulary, [corpus.pieces()])[0]
        nats = evaluate(net.model, ids).nats
        spelling = Spelling.of(net.vocabulary, len(ids), corpus.characters, corpus.pieces())
        bits, numbers, first = spelling.bits(nats), {"loss": nats}, ""
        if config.level != "char":
            unit = unit_of(net.vocabulary)
            first = f"{len(ids):,} {unit}s, {nats:.4f} nats and {nats / math.log(2):.4f} bits per {unit}"
            if config.level in LIMITS:
                first += f", {_perplexity(nats, isinstance(net.vocabulary, Words))}"
                numbers[PER_CHARACTER] = bits
            first += "\n"
        note = "".join(f"\n{line}" for line in (spelling.words("tokens"), corpus.note) if line)
        text = f"{corpus.characters:,} characters, {bits * math.log(2):.4f} nats and {bits:.4f} {PER_CHARACTER}"
        return Found(f"{first}{text}{note}", numbers)

    def generate(self, config: CharLMConfig, net: Net, seed: int, prompt: str = "", **options: Any) -> Iterator[str]:
        """A prompt, and what follows it; `options`: those of `generate.generate`."""
        return chain([prompt], generate(net.model, net.vocabulary, prompt, seed=seed, **options))


def _perplexity(nats: float, words: bool) -> str:
    return f"perplexity {math.exp(min(nats, 700)):.2f}" + (f" ({UNKNOWN.strip()} as one token)" if words else "")


JOB = CharLMJob()
