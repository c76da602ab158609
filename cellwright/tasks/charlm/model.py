"""The character model: predict the next symbol of a text, one symbol after the other.

x_t = one_hot(s_t) or E s_t          symbol to vector
h_t = recurrent(x_t, h_{t-1})        any cell, any number of layers
p(s_{t+1} | s_1 ... s_t) = softmax(W h_t + b)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ...cells import find
from ...convert import to_onnx
from ...errors import OptionError
from ...lang import Definition
from ...nn import Recurrent, stepper
from ..data.tokens import LIMITS
from .config import CharLMConfig
from .state import State


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
