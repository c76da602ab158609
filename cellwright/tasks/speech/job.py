"""Speech: recordings to text by CTC, or to a label each."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ...errors import DataError, OptionError
from ...nn import Recurrent
from ...topologies import ManyToMany, ManyToOne
from ..data.lexicon import Lexicon
from ..data.parts import VALIDATION
from ..job import SHARE, Found, Prediction
from ..labels.dataset import Dataset, Example
from ..labels.job import LabelJob
from ..labels.net import LabelTask, Net
from .config import SpeechConfig
from .ctc import align, nats
from .features import HOP
from .net import SpeechNet, SpeechTask, TextJudgement
from .pictures import alignment
from .reader import SpeechReader

_WORST = 10  # texts that an evaluation shows


class SpeechJob(LabelJob):
    """Recordings to texts or labels."""

    config = SpeechConfig
    scales = (("errors", "CER", "WER"), (SHARE, "accuracy", "macro F1"))
    unit = "recording"
    spans = False
    reader = SpeechReader
    takes = ("beam", "times")

    def topology(self, config: SpeechConfig, recurrent: Recurrent, output: nn.Module) -> nn.Module:
        """N to N, or N to 1."""
        if config.level == "label":
            return ManyToOne(recurrent, output, pool=config.pool)
        return ManyToMany(recurrent, output)

    def lexicons(self, config: SpeechConfig, data: Dataset) -> tuple[Lexicon | None, Lexicon | None, bool, int]:
        """None: frames are numbers."""
        return None, None, False, 0

    def gather(
        self,
        config: Any,
        data: Dataset,
        layout: Mapping[str, Any],
        drawn: Iterable[Example],
        validation: Iterable[Example] = (),
        test: Iterable[Example] = (),
    ) -> Dataset:
        """As for labels; a text also has the blank, the symbol without letters, which is the first in any order."""
        if config.level != "label":
            data.labels[""] = 0
        return super().gather(config, data, layout, drawn, validation, test)

    def width(self, config: SpeechConfig, data: Dataset) -> int:
        """Filters of all frames of a step."""
        return data.features * config.stack * (2 if config.deltas else 1)

    def build(self, config: SpeechConfig, documents: Mapping[str, Any]) -> SpeechNet:
        """The net."""
        net = super().build(config, documents)
        return SpeechNet(net.model, net.encoding, config)

    def task(self, config: SpeechConfig, net: Net, data: Dataset) -> LabelTask:
        """The data in batches."""
        assert isinstance(net, SpeechNet)
        return SpeechTask(config, net, data, self.unit if config.level == "label" else "symbol")

    def facts(self, config: SpeechConfig, net: Net, data: Dataset, task: LabelTask) -> dict[str, list[str]]:
        """Model, data and plan."""
        label = config.level == "label"
        other = data.layout.get("resampled", 0)
        changes = {
            "speed": f"{config.speed:.0%}",
            "shift": f"{config.shift} frames",
            "gain": f"{config.gain:g} dB",
            "noise": f"{config.noise:g} dB",
            "masks": config.masks,
        }
        rows = super().facts(config, net, data, task)
        classes = rows["data"][-1].replace("classes", "labels" if label else "symbols")
        rows["data"] = [
            f"{len(data):,} recordings, {data.inputs.lengths.sum() * HOP / 60:.1f} minutes",
            f"{data.layout['rate']} samples per second" + (f" ({other:,} resampled)" if other else ""),
            f"{data.features} mel filters" + (" with deltas" if config.deltas else ""),
            f"{config.stack} frames per step" if config.stack > 1 else "",
            classes,
        ]
        rows["chance"] = [f"{name} {shown}" for name, shown in changes.items() if getattr(config, name)]
        return rows

    def evaluate(self, config: SpeechConfig, net: Net, paths: Sequence[str], **options: Any) -> Found:
        """Error rates of texts, or accuracy and F1 of labels."""
        net = _searching(net, options)
        if config.level == "label":
            return super().evaluate(config, net, paths)
        judgement = TextJudgement(net)
        wrong: list[tuple[float, str, str, str]] = []
        shown = None
        for example, scores, truth in self.answers(net, self._examples(config, net, paths, True)):
            want, got = net.text(truth.tolist()), judgement.add(scores, truth)
            shown = shown or (example.inputs, scores, example.shown)
            if want != got:
                wrong = sorted([*wrong, (-nats(scores, truth.tolist()) / len(truth), example.shown, want, got)])
                wrong = wrong[:_WORST]
        if shown is None:
            raise DataError(f"{', '.join(map(str, paths))}: no recording; name files with data")
        found = judgement.measured
        rates = f"CER {found['CER']:.4f}, WER {found['WER']:.4f}, {found['accuracy']:.4f} without an error"
        lines = [f"{judgement.texts:,} recordings, {rates}, {found['loss']:.4f} nats per symbol"]
        lines += ["the least probable of those with errors:"] if wrong else []
        lines += [f"  {file}  {want!r} was heard as {got!r}" for _, file, want, got in wrong]
        return Found("\n".join(lines), found, partial(_draw, net, *shown))

    def pictures(self, config: SpeechConfig, net: Net, task: LabelTask, folder: Path) -> list[Path]:
        """The confusion matrix, or what was heard when in a recording of the validation part."""
        assert isinstance(net, SpeechNet)
        if config.level == "label":
            return super().pictures(config, net, task, folder)
        lengths = task.data.inputs.lengths
        index = max(task.data.part(VALIDATION).tolist(), key=lambda i: int(lengths[i]))
        ((_, scores, _),) = net.run(net.batches(task.data), np.array([index]))
        title = f"recording {index + 1} of the data, the longest for validation"
        return [_draw(net, task.data.inputs[index], scores, title, folder / "alignment.png")]

    def predict(self, config: SpeechConfig, net: Net, paths: Sequence[str], **options: Any) -> Prediction:
        """A text or a label per recording; with `times`, a row per symbol. `beam`: how wide texts are searched."""
        net = _searching(net, options)
        answers = self.answers(net, self._examples(config, net, paths, False))
        if options.get("times"):
            return Prediction(_timed(config, net, answers), ("file", "symbol", "start", "end", "probability"))
        return self.told(net, answers)

    def told(self, net: Net, found: Iterator[tuple[Example, NDArray[Any], Any]]) -> Prediction:
        """One record per recording; as plain text in the form of a table of transcripts."""
        assert isinstance(net, SpeechNet)
        what = "label" if net.config.level == "label" else "text"

        def records() -> Iterator[dict[str, Any]]:
            for example, scores, _ in found:
                if what == "label":
                    k = int(scores[0].argmax())
                    said, probability = net.encoding.labels[k], float(np.exp(scores[0, k]))
                else:
                    symbols = net.read(scores)
                    said, probability = net.text(symbols), float(np.exp(-nats(scores, symbols)))
                yield {"file": example.shown, what: said, "probability": round(probability, 6)}

        return Prediction(records(), ("file", what, "probability"), lambda record: f"{record['file']}\t{record[what]}")


def _searching(net: Net, options: Mapping[str, Any]) -> SpeechNet:
    """The net, told how to search. OptionError: it gives labels, which are not searched."""
    assert isinstance(net, SpeechNet)
    if net.config.level == "label" and (given := [name for name in ("beam", "times") if options.get(name)]):
        raise OptionError(f"--{given[0]} is for texts, and this run was trained with --level label; leave it out")
    net.width = options.get("beam") or 0
    return net


def _timed(
    config: SpeechConfig, net: SpeechNet, found: Iterator[tuple[Example, NDArray[Any], Any]]
) -> Iterator[dict[str, Any]]:
    """Each symbol with its time in seconds, and the mean probability of its steps."""
    seconds = config.stack * HOP
    for example, scores, _ in found:
        symbols = net.read(scores)
        for symbol, (first, last) in zip(symbols, align(scores, symbols), strict=True):
            yield {
                "file": example.shown,
                "symbol": net.encoding.labels[symbol],
                "start": round(first * seconds, 3),
                "end": round((last + 1) * seconds, 3),
                "probability": round(float(np.exp(scores[first : last + 1, symbol]).mean()), 6),
            }


def _draw(net: SpeechNet, frames: NDArray[Any], scores: NDArray[Any], title: str, file: Path) -> Path:
    symbols = net.read(scores)
    spans = [(k, first, last) for k, (first, last) in zip(symbols, align(scores, symbols), strict=True)]
    title = f"{title}, heard as {net.text(symbols)!r}"
    return alignment(frames, scores, net.encoding.labels, spans, net.config.stack * HOP, title, file)


JOB = SpeechJob()
