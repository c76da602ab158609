"""The net that knows what comes next in a piano roll, and its training.

    h_t = recurrent([v_{t-1}, class], h_{t-1})           v_0 = 0: nothing is down before a tune begins
    p(v_t,k = 1 | v_1 ... v_{t-1}) = sigmoid(V h_t + c)_k   for each of the 88 keys

The loss of a step is the sum over the keys of the binary cross-entropy; that of data the mean over all steps of all
tunes, as in Boulanger-Lewandowski et al. 2012 and Bai et al. 2018. The first step counts here, as its probability is
part of a tune's. The code of Bai et al. leaves it out: that number is given beside it.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

from ...nn import Recurrent
from ...topologies import ManyToMany
from ..data.order import Order, by_length
from ..task import Task
from .config import MusicConfig
from .keys import KEYS
from .rolls import TEST, TRAINING, VALIDATION, Rolls

WITHOUT_FIRST = "without first step"
_STEPS_AT_ONCE = 2**15  # steps of all tunes of a batch, in evaluations


class MusicNet(nn.Module):
    """Rolls, one step late, to the logits of the keys.

    `classes`: K, 0 for none. `share` [88]: how often each key is down, which is where the training begins.
    """

    def __init__(self, recurrent: Recurrent, classes: int, share: Tensor, dropout: float, input_dropout: float) -> None:
        super().__init__()
        self.classes = classes
        self.input_dropout = nn.Dropout(input_dropout)
        last = nn.Linear(recurrent.output_size, KEYS)
        with torch.no_grad():
            last.bias.copy_(share.logit())
        self.topology = ManyToMany(recurrent, nn.Sequential(nn.Dropout(dropout), last))

    def forward(
        self, x: Tensor, label: Tensor | None = None, state: Any = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """x [T, B, 88] and classes int64 [B] to logits [T, B, 88], zero in the padding, and the state after them."""
        x = self.input_dropout(x)
        if label is not None and self.classes:
            every = one_hot(label, self.classes).to(x.dtype).expand(len(x), -1, -1)  # the class is there at every step
            x = torch.cat([x, every], -1)
        logits, state = self.topology(x, state, lengths=lengths)
        return logits, state


class Net:
    """A net, and the classes that it knows."""

    def __init__(self, model: MusicNet, classes: tuple[str, ...]) -> None:
        self.model, self.classes = model, classes


class Judgement:
    """NLL and accuracy over batches."""

    def __init__(self) -> None:
        self.total = self.first = 0.0  # nats, and those of first steps
        self.steps = self.tunes = self.right = self.wrong = 0

    def add(self, logits: Tensor, keys: Tensor, lengths: Tensor) -> None:
        """Logits and keys [T, B, 88] of whole tunes with `lengths` [B]."""
        valid = torch.arange(len(keys))[:, None] < lengths  # [T, B]
        nats = binary_cross_entropy_with_logits(logits.double(), keys.double(), reduction="none").sum(-1) * valid
        self.total += float(nats.sum())
        self.first += float(nats[0].sum())
        self.steps += int(lengths.sum())
        self.tunes += len(lengths)
        guess, truth = (logits > 0) & valid.unsqueeze(-1), keys.bool() & valid.unsqueeze(-1)
        self.right += int((guess & truth).sum())
        self.wrong += int((guess ^ truth).sum())

    @property
    def measured(self) -> dict[str, float]:
        """NLL per step; the share TP / (TP + FP + FN) of keys (Bay et al. 2009); NLL per step but the first ones."""
        return {
            "loss": self.total / max(self.steps, 1),
            "accuracy": self.right / max(self.right + self.wrong, 1),
            WITHOUT_FIRST: (self.total - self.first) / max(self.steps - self.tunes, 1),
        }


@torch.no_grad()
def judge(net: Net, data: Rolls, indices: NDArray[np.int64]) -> Judgement:
    """How well a net, put into evaluation mode, knows whole tunes."""
    net.model.eval()
    judgement = Judgement()
    lengths = data.keys.lengths
    longest = int(lengths[indices].max(initial=1))
    for chosen in by_length(indices, lengths[indices], max(1, min(64, _STEPS_AT_ONCE // longest))):
        x, keys, sizes, label = data.batch(chosen, np.zeros_like(chosen), lengths[chosen], net.classes)
        judgement.add(net.model(x, label, lengths=sizes)[0], keys, sizes)
    return judgement


class MusicTask(Task):
    """The task that the training loop sees."""

    model: MusicNet
    unit = "step"

    def __init__(self, config: MusicConfig, net: Net, data: Rolls) -> None:
        self.net, self.model, self.data = net, net.model, data
        self.better = {"loss": -1, "accuracy": 1, WITHOUT_FIRST: -1}
        self._seed, self._transpose = config.seed, config.transpose
        self._tunes, self._starts, self._sizes = data.windows(data.part(TRAINING), config.window)
        self.order = Order(np.arange(len(self._tunes)), self._sizes, config.batch, config.seed)
        self.per_step = max(1, round(int(self._sizes.sum()) / self.order.batches))

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Rolls, keys, lengths and classes of pieces of tunes, each moved by some semitones."""
        chosen = self.order(step)
        shifts = None
        if self._transpose:
            shifts = np.random.default_rng([self._seed, step]).integers(
                -self._transpose, self._transpose + 1, len(chosen)
            )
        return self.data.batch(self._tunes[chosen], self._starts[chosen], self._sizes[chosen], self.net.classes, shifts)

    def criterion(self, batch: tuple[Tensor, Tensor, Tensor, Tensor | None], step: int) -> Tensor:
        """Nats per step."""
        x, keys, lengths, label = batch
        logits, _ = self.model(x, label, lengths=lengths)
        valid = torch.arange(len(keys))[:, None, None] < lengths[:, None]  # [T, B, 1]
        return binary_cross_entropy_with_logits(logits, keys, valid.to(keys.dtype), reduction="sum") / lengths.sum()

    def validate(self) -> dict[str, float]:
        """NLL and accuracy on the validation part."""
        return judge(self.net, self.data, self.data.part(VALIDATION)).measured

    def test(self) -> dict[str, float] | None:
        """The same on the test part; None if there is none."""
        indices = self.data.part(TEST)
        return judge(self.net, self.data, indices).measured if len(indices) else None

    def last_losses(self, count: int, steps: int | None) -> Tensor:
        """Nats [B] of the last of at most so many steps of the first tunes for validation."""
        tunes = self.data.part(VALIDATION)[:count]
        sizes = np.minimum(self.data.keys.lengths[tunes], steps or _STEPS_AT_ONCE)
        x, keys, lengths, label = self.data.batch(tunes, np.zeros_like(tunes), sizes, self.net.classes)
        logits, _ = self.model(x, label, lengths=lengths)
        at = lengths - 1, torch.arange(len(tunes))
        return binary_cross_entropy_with_logits(logits[at], keys[at], reduction="none").sum(-1)
