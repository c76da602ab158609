"""The net that hears, how good it is, and its training.

x_t = frames side by side, normalised
h_t = recurrent(x_t, h_{t-1}), in both directions
p_t = softmax(V h_t + c), of the blank and each symbol (CTC); or one p = softmax(V pool(h) + c) of labels
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import ctc_loss

from ..data.parts import VALIDATION
from ..labels.dataset import IGNORE, Batch, Dataset, Encoding
from ..labels.net import LabelNet, LabelTask, Net
from .batches import SpeechBatches
from .config import SpeechConfig
from .ctc import BLANK, beam, best_path, nats


class SpeechNet(Net):
    """A net, and what it knows of sound and symbols; `width` of the beam that texts are searched with, 0: best path."""

    def __init__(self, model: LabelNet, encoding: Encoding, config: SpeechConfig) -> None:
        super().__init__(model, encoding)
        self.config, self.width = config, 0
        self.between = " " if config.level == "word" else ""

    def batches(self, data: Dataset) -> SpeechBatches:
        """Recordings as this net takes them."""
        return SpeechBatches(data, self.encoding, self.config)

    def judgement(self) -> Any:
        """An empty one, of labels or of texts."""
        return super().judgement() if self.config.level == "label" else TextJudgement(self)

    def read(self, scores: NDArray[Any]) -> list[int]:
        """The symbols that log-probabilities [T, K] say."""
        return beam(scores, self.width) if self.width > 1 else best_path(scores)

    def text(self, symbols: Sequence[int]) -> str:
        """Symbols as one writes them."""
        return self.between.join(self.encoding.labels[k] for k in symbols)


class TextJudgement:
    """Loss and error rates of texts that come one by one.

    Rates are edits (Levenshtein 1966: symbols put in, left out, or replaced) of all texts, per character (CER) or word
    (WER) of all transcripts, spaces included: they may exceed 1.
    """

    better: ClassVar = {"loss": -1, "CER": -1, "WER": -1, "accuracy": 1}

    def __init__(self, net: SpeechNet) -> None:
        from rapidfuzz.distance.Levenshtein import distance

        self._net, self._distance = net, distance
        self.total = 0.0
        self.symbols = self.texts = self.right = 0
        self.edits = {"CER": 0, "WER": 0}
        self.lengths = {"CER": 0, "WER": 0}

    def add(self, scores: NDArray[Any], truth: NDArray[np.int64]) -> str:
        """One recording: log-probabilities [T, K] and symbols [U]. Returns what the net says."""
        self.total += nats(scores, truth.tolist())
        self.symbols += len(truth)
        want, got = self._net.text(truth.tolist()), self._net.text(self._net.read(scores))
        for rate, left, right in (("CER", want, got), ("WER", want.split(), got.split())):
            self.edits[rate] += self._distance(left, right)
            self.lengths[rate] += len(left)
        self.texts += 1
        self.right += want == got
        return got

    @property
    def measured(self) -> dict[str, float]:
        """By name, the loss first."""
        rates = {name: self.edits[name] / max(self.lengths[name], 1) for name in self.edits}
        return {"loss": self.total / max(self.symbols, 1), **rates, "accuracy": self.right / max(self.texts, 1)}


class SpeechTask(LabelTask):
    """The task that the training loop sees."""

    _batches: SpeechBatches

    def __init__(self, config: SpeechConfig, net: SpeechNet, data: Dataset, unit: str) -> None:
        super().__init__(config, net, data, unit)
        self._text, self._seed = config.level != "label", config.seed

    def batch(self, step: int) -> Batch:
        """Recordings changed by chance, which depends on the seed and the step only."""
        return self._batches(self.order(step), np.random.default_rng([self._seed, step, 1]))

    def last_losses(self, count: int) -> Tensor:
        """Of labels as for other tasks; of texts, which have no times, -ln p [B] of what is heard at the last step."""
        if not self._text:
            return super().last_losses(count)
        batch = self._batches(self.data.part(VALIDATION)[:count])
        scores = self.model(batch).log_softmax(-1)  # [T, B, K]
        last: Tensor = scores[batch.lengths - 1, torch.arange(scores.shape[1])]
        return -last.amax(-1)

    def criterion(self, batch: Batch, step: int) -> Tensor:
        """-ln p(text) per symbol, or -ln p(label) per recording."""
        if not self._text:
            return super().criterion(batch, step)
        logits, y = self.model(batch), batch.y.T  # [B, U]
        there = y != IGNORE
        sizes = there.sum(1)
        total = ctc_loss(logits.log_softmax(-1), y[there], batch.lengths, sizes, BLANK, "sum")
        return total / torch.clamp(sizes.sum(), min=1)
