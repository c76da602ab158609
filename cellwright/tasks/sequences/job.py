"""What `translate` and `caption` share: from files to a trained net and its use. They differ in sources and encoder."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import DataError, OptionError
from ...nn import Recurrent
from ...topologies import EncoderDecoder
from ..data.lexicon import Lexicon
from ..data.parts import TEST, TRAINING, VALIDATION, Draw
from ..data.tables import named
from ..data.tokens import LIMITS
from ..job import SHARE, Found, Job, Prediction, layer_line
from .config import SequencesConfig
from .dataset import Batches, Example, Pairs
from .net import Net, PairTask, Written, decoder_cells, judge, perplexity
from .scores import ABSENT, there

_BLOCK = 2**15  # symbols or numbers that are read before texts are written for them
_SHOWN = 3  # examples that an evaluation prints
AT_LEAST = {"word": 2, "char": 1, "bpe": 1}  # how often a symbol is in the training data, to be known


class SequencesJob(Job):
    """A task that writes a text for each source."""

    scales = (("score, 0 to 100", "BLEU", "chrF"), ("score, 0 to 10", "CIDEr-D"), (SHARE, "exact"))
    takes = ("beam",)
    scores: tuple[str, ...]
    source: str  # what a source is called
    column: str  # what a text is called

    @abstractmethod
    def examples(
        self, config: Any, paths: Sequence[str], layout: dict[str, Any], labelled: bool, data: Pairs | None
    ) -> Iterator[Example]:
        """The examples of files, with texts if `labelled`; `data` is the data set of a training, which reads with
        care. `layout` is what a run remembers of how files are read. DataError: they are not what they should be."""

    @abstractmethod
    def encoder(self, config: Any, data: Pairs, layout: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
        """What the encoder is made from, as JSON, and the numbers that it gives per place."""

    @abstractmethod
    def model(self, config: Any, known: Mapping[str, Any], symbols: int) -> EncoderDecoder:
        """The net of an encoding with so many symbols of texts; the last two are start and end."""

    @abstractmethod
    def net(self, config: Any, model: EncoderDecoder, known: Mapping[str, Any], lexicon: Lexicon) -> Net:
        """The net with what it knows."""

    @abstractmethod
    def draw(self, net: Net, batches: Batches, sources: Sequence[int], file: Path) -> Path:
        """A picture of where the net looked when it wrote for these sources."""

    def read(self, config: Any) -> Pairs:
        """All files, once: encoded on the disk."""
        if not config.data:
            raise DataError(f"there are no data: name files, as in `cellwright train {config.task} DATA --out RUN`")
        data, layout = Pairs(config.level, config.longest), {}  # type: ignore[var-annotated]
        validation = 0.0 if config.validation_data else config.validation
        draw = Draw({TEST: 0.0 if config.test_data else config.test, VALIDATION: validation}, config.seed)
        for example in self.examples(config, config.data, layout, True, data):
            data.add(example, draw())
        for paths, part in ((config.validation_data, VALIDATION), (config.test_data, TEST)):
            if paths:
                for example in self.examples(config, paths, layout, True, data):
                    data.add(example, part)
        data.close()
        if config.level == "bpe":
            data.cut(config.vocabulary or LIMITS["bpe"])
        data.check(", ".join(config.data))
        data.layout = layout
        return data

    def settle(self, config: Any, data: Pairs) -> Any:
        """Steps and evaluations from epochs."""
        return config.scheduled(-(-len(data.pairs(TRAINING)) // config.batch))

    def learn(self, config: Any, data: Pairs) -> dict[str, Any]:
        """The symbols and the cells."""
        lexicon = Lexicon.build(data.target_counts, AT_LEAST[config.level])
        if not len(lexicon) - 1:
            raise DataError(
                f"{', '.join(config.data)}: no word of the texts is there twice, so that none can be learned; give "
                f"more data, or choose --level char"
            )
        encoder, memory = self.encoder(config, data, data.layout)
        cells = [one.to_json() for one in decoder_cells(config, memory)]
        known = {"layout": dict(data.layout), "longest": data.longest_target, "memory": memory, **encoder}
        known["pieces"] = [pairs and pairs.to_json() for pairs in data.pieces]
        return {"encoding.json": {"symbols": lexicon.to_json(), "decoder": cells, **known}}

    def build(self, config: Any, documents: Mapping[str, Any]) -> Net:
        """The net."""
        known = documents["encoding.json"]
        lexicon = Lexicon.from_json(known["symbols"])
        return self.net(config, self.model(config, known, len(lexicon) + 2), known, lexicon)

    def task(self, config: Any, net: Net, data: Pairs) -> PairTask:
        """The data in batches."""
        return PairTask(config, net, data, self.scores)

    def sample(self, config: Any, net: Net, step: int) -> str | None:
        """What is written for the first source of the validation part."""
        return net.sample

    def facts(self, config: SequencesConfig, net: Net, data: Pairs, task: PairTask) -> dict[str, list[str]]:
        """Model, data and plan."""
        words = int(data.targets.lengths.sum()) / max(len(data.source_of), 1)
        steps = config.steps or 1
        taken = [str(net.layout[side]) for side in (self.source, self.column) if side in net.layout]
        return {
            "model": layer_line(
                config,
                net.model,
                self.described(config, net),
                f"attention {config.attention}" if config.attention != "none" else "no attention",
                f"embedding of {config.embed or config.hidden}",
            ),
            "data": [
                f"{len(data):,} {self.source}s",
                f"{len(data.source_of):,} pairs from the columns {named(taken)}" if taken else "",
                f"{len(data.source_of):,} texts of {words:.1f} symbols",
                f"{len(net.lexicon) - 1:,} symbols known to write",
                f"{data.left_out:,} pairs longer than {config.longest} left out" if data.left_out else "",
            ],
            "split": [
                f"{len(data.pairs(part)):,} {name}"
                for part, name in ((TRAINING, "to train on"), (VALIDATION, "for validation"), (TEST, "for the test"))
            ],
            "plan": [
                f"{steps} steps of {config.batch} pairs",
                f"{steps / task.order.batches:.1f} epochs",
                f"sampling up to {config.sampling:g}" if config.sampling else "teacher forcing",
                f"beam {config.beam}",
            ],
            **({} if there() else {"scores": [ABSENT]}),
        }

    def described(self, config: Any, net: Net) -> str:
        """The encoder in a few words."""
        return ""

    def last_losses(self, task: PairTask, count: int, steps: int | None) -> tuple[Recurrent, Callable[[], Tensor]]:
        """Those of the ends of texts, at the states of the decoder. OptionError: it is called once per step."""
        decoder = task.model.decoder
        if decoder.loops:
            raise OptionError(
                f"--attention {task.config.attention} needs a call of the decoder per step, and gradients can be "
                f"looked back at through one call over all steps; name another run"
            )

        def losses() -> Tensor:
            each, ends = task.losses(count)
            return each[ends, torch.arange(each.shape[1])]

        return decoder.recurrent, losses

    def evaluate(self, config: Any, net: Net, paths: Sequence[str], **options: Any) -> Found:
        """Loss, perplexity and scores on files with texts."""
        data = net.pairs()
        for example in self.examples(config, paths, dict(net.layout), True, None):
            data.add(example, TEST)
        data.close()
        if not len(data.source_of):
            raise DataError(f"{', '.join(map(str, paths))}: no pair; name files with data")
        batches, sources = net.batches(data), data.part(TEST)
        judged = judge(net, batches, data.pairs(TEST), sources, options.get("beam") or config.beam, self.scores)
        numbers = {**judged.numbers, "perplexity": perplexity(judged.numbers["loss"])}
        words = ", ".join(f"{name} {value:.4f}" for name, value in numbers.items() if name != "loss")
        lines = [f"{len(sources):,} {self.source}s, {words}, {numbers['loss']:.4f} nats per symbol"]
        lines += [] if there() else [ABSENT]
        for k in sources[:_SHOWN].tolist():
            lines += [f"{self.source:9} {data.shown(k)}", f"written   {judged.texts[k]}"]
            lines += [f"right     {text}" for text in data.texts(k)]
        drawn = partial(self.draw, net, batches, sources[:_SHOWN].tolist())
        return Found("\n".join(lines), numbers, drawn)

    def pictures(self, config: Any, net: Net, task: PairTask, folder: Path) -> list[Path]:
        """Where the net looks, for the first sources of the validation part."""
        sources = task.data.part(VALIDATION)[:_SHOWN].tolist()
        return [self.draw(net, task.batches, sources, folder / "attention.png")]

    def predict(self, config: Any, net: Net, paths: Sequence[str], **options: Any) -> Prediction:
        """A text for every source, with its probability."""

        def records() -> Iterator[dict[str, Any]]:
            examples = self.examples(config, paths, dict(net.layout), False, None)
            for example, written in self.written(net, examples, options.get("beam") or config.beam):
                yield {
                    "place": example.place,
                    self.source: example.shown,
                    self.column: written.text,
                    "log_probability": round(written.log_probability, 4),
                }

        columns = ("place", self.source, self.column, "log_probability")
        return Prediction(records(), columns, self.line)

    @abstractmethod
    def line(self, record: dict[str, Any]) -> str:
        """A prediction as plain text."""

    def written(self, net: Net, examples: Iterable[Example], beam: int) -> Iterator[tuple[Example, Written]]:
        """Examples in their order, with what is written for them; read as they are needed."""
        block: list[Example] = []
        size = 0
        for example in examples:
            block.append(example)
            size += np.size(example.source) if isinstance(example.source, np.ndarray) else len(example.source)
            if size >= _BLOCK * (32 if isinstance(example.source, np.ndarray) else 1):
                yield from _written(net, block, beam)
                block, size = [], 0
        yield from _written(net, block, beam)


def _written(net: Net, block: Sequence[Example], beam: int) -> Iterator[tuple[Example, Written]]:
    if not block:
        return
    data = net.pairs()
    for example in block:
        data.add(example, TEST)
    data.close()
    found = dict(net.write(net.batches(data), np.arange(len(data)), beam))
    for index, example in enumerate(block):
        yield example, found[index]
