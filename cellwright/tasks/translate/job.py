"""N to M: a text in another language, or in another form."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...errors import DataError
from ...lang import Definition
from ...nn import Recurrent
from ...topologies import Encoder, EncoderDecoder
from ..data.lexicon import UNKNOWN, Lexicon
from ..data.tables import SUFFIXES, lines
from ..pictures import attention
from ..sequences.dataset import Batches, Example, Pairs
from ..sequences.job import AT_LEAST, SequencesJob
from ..sequences.net import Net, PairTask, decoder, layers, recurrent
from ..sequences.symbols import split, to_read
from .config import TranslateConfig
from .reader import rows


class Symbols(nn.Module):
    """Ids of a source to vectors; in training, rare symbols are sometimes taken for unknown."""

    def __init__(self, lexicon: Lexicon, embed: int, unknown: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(lexicon), embed)
        nn.init.normal_(self.embedding.weight, std=embed**-0.5)
        self.doubt: Tensor
        self.register_buffer("doubt", torch.from_numpy(lexicon.doubt(unknown)), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """[S, B] to [S, B, E]."""
        if self.training:
            ids = ids.masked_fill(torch.rand(ids.shape) < self.doubt[ids], UNKNOWN)
        found: Tensor = self.embedding(ids)
        return found


class TranslateNet(Net):
    """The net, and the symbols that it reads."""

    def __init__(
        self, config: TranslateConfig, model: EncoderDecoder, known: Mapping[str, Any], lexicon: Lexicon
    ) -> None:
        super().__init__(config, model, known, lexicon)
        self.reads = Lexicon.from_json(known["source"])

    def reader(self, data: Pairs) -> Callable[[NDArray[np.int64]], tuple[Tensor, Tensor | None]]:
        """Ids [S, B] and lengths [B]."""
        sources = data.sources
        assert sources is not None
        ids = self.reads.encode(data.source_symbols)

        def batch(indices: NDArray[np.int64]) -> tuple[Tensor, Tensor | None]:
            codes = sources.pad(indices, 0)
            return torch.from_numpy(ids[codes]), torch.from_numpy(sources.lengths[indices])

        return batch


class TranslateJob(SequencesJob):
    """A text for a text."""

    config = TranslateConfig
    scores = ("exact", "BLEU", "chrF")
    source, column = "source", "target"

    def examples(
        self, config: Any, paths: Sequence[str], layout: dict[str, Any], labelled: bool, data: Pairs | None
    ) -> Iterator[Example]:
        """The rows of tables; the lines of two files that belong together, or without targets of one."""
        digest = None if data is None else data.hash
        plain = [Path(path) for path in paths if Path(path).suffix.lower() not in SUFFIXES]
        for path in plain:
            if path.is_dir():
                raise DataError(f"{path} is a folder; name its files: a table, or sources and targets")
        for path in (Path(path) for path in paths if Path(path).suffix.lower() in SUFFIXES):
            for place, source, target in rows(path, config, layout, labelled, digest):
                yield from _example(config, place, source, [target] if labelled else [])
        if not labelled:
            for path in plain:
                for number, line in enumerate(lines(path), 1):
                    yield from _example(config, f"{path}, line {number}", line, [])
            return
        if len(plain) % 2:
            raise DataError(
                f"got {len(plain)} file(s) of lines ({', '.join(map(str, plain))}), expected sources and targets in "
                f"turns, as in `train.en train.de`; or a .tsv with both in every row"
            )
        for first, second in zip(plain[::2], plain[1::2], strict=True):
            both = zip_longest(lines(first, digest), lines(second, digest))
            for number, (source, target) in enumerate(both, 1):
                if source is None or target is None:
                    short, long = (first, second) if source is None else (second, first)
                    raise DataError(
                        f"{short} ends after line {number - 1}, and {long} goes on: line {number} has no partner; the "
                        f"lines of both files must belong together one by one"
                    )
                if source.strip() or target.strip():
                    yield from _example(config, f"{first} and {second}, line {number}", source, [target])

    def encoder(self, config: Any, data: Pairs, layout: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
        """The symbols of the sources, and the cells."""
        lexicon = Lexicon.build(data.source_counts, AT_LEAST[config.level])
        cells = layers(config, config.embed or config.hidden, config.bidirectional)
        memory = (2 if config.bidirectional else 1) * cells[-1].output_size
        return {"source": lexicon.to_json(), "encoder": [one.to_json() for one in cells]}, memory

    def model(self, config: Any, known: Mapping[str, Any], symbols: int) -> EncoderDecoder:
        """Embedding, layers in both directions, and the decoder."""
        cells = [[Definition.from_json(one) for one in known[half]] for half in ("encoder", "decoder")]
        reads = Symbols(Lexicon.from_json(known["source"]), config.embed or config.hidden, config.unknown)
        layer = recurrent(config, cells[0], config.bidirectional)
        encoder = Encoder(layer, input=reads, dropout=config.dropout)
        writes = decoder(config, cells[1], symbols, layer.output_size)
        return EncoderDecoder(encoder, writes, start=symbols - 2, end=symbols - 1)

    def net(self, config: Any, model: EncoderDecoder, known: Mapping[str, Any], lexicon: Lexicon) -> Net:
        """With the symbols of the sources."""
        return TranslateNet(config, model, known, lexicon)

    def described(self, config: Any, net: Any) -> str:
        """Its directions, and what it reads."""
        both = "both directions" if config.bidirectional else "one direction"
        return f"{both}, reads {len(net.reads) - 1:,} symbols"

    def last_losses(self, task: PairTask, count: int, steps: int | None) -> tuple[Recurrent, Callable[[], Tensor]]:
        """How far back in what was read a text looks: the loss of the whole text, at the states of the encoder."""
        recurrent: Recurrent = task.model.encoder.recurrent  # type: ignore[assignment]
        return recurrent, lambda: task.losses(count)[0].sum(0)

    def line(self, record: dict[str, Any]) -> str:
        """The target alone: line by line beside the sources."""
        return str(record["target"])

    def draw(self, net: Net, batches: Batches, sources: Sequence[int], file: Path) -> Path:
        """Symbols written over symbols read."""
        found = []
        names = [to_read(symbol, net.config.level) for symbol in batches.data.source_symbols]
        assert batches.data.sources is not None
        for k in sources:
            written, weights = net.looked(batches, k)
            found.append(([names[i] for i in batches.data.sources[k].tolist()], written, weights))
        return attention(found, file)


def _example(config: Any, place: str, source: str, targets: list[str]) -> Iterator[Example]:
    """One pair. DataError: one side of it is empty."""
    source, targets = source.strip(), [target.strip() for target in targets]
    if targets and not (source and targets[0]):
        side, other = ("source", "target") if not source else ("target", "source")
        text = source or targets[0]
        raise DataError(f"{place} has an empty {side} beside the {other} {text[:60]!r}; fill it in, or leave out both")
    read = source.lower() if config.lower else source
    yield Example(place, split(read, config.level), [t.lower() for t in targets] if config.lower else targets, source)


JOB = TranslateJob()
