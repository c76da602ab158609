"""Initial biases of gates for long memories (Tallec & Ollivier 2018)."""

from typing import Any

import torch

from ..errors import OptionError
from .recurrent import Recurrent


@torch.no_grad()
def chrono_initialise(layer: Recurrent, longest: int) -> None:
    """Start the gates of every layer with memories of 1 to `longest` steps: forget gates that stay open, some for long.

        b_f = ln u,  b_i = -ln u,  u drawn from U(1, longest - 1) for each unit

    A unit whose forget gate has the value 1 - 1/(1 + u) forgets in about u steps. A gate for both, such as z of the
    GRU, gets b_f with the sign of what it keeps. The bias beside it, of R h, becomes zero for these gates.

    Args:
        layer: of cells with gates and biases; its weights change.
        longest: the longest memory in steps that the task needs, from 3 on.

    Source: C. Tallec and Y. Ollivier, "Can recurrent neural networks warp time?", ICLR 2018. A forget bias of one
    number (`forget_bias` of the LSTM) gives every unit the same memory.

    OptionError: a cell without such gates or without biases, or a smaller `longest`.
    """
    if not isinstance(longest, int) or longest < 3:
        raise OptionError(f"got {longest!r} as longest memory, expected a number of steps from 3 on")
    for k, definition in enumerate(layer.definitions):
        bias: Any = definition.params.get("bias_ih")
        gates = {name: sign for name, sign in definition.keeps.items() if bias and name in bias.slices}
        if not gates:
            raise OptionError(
                f"got a layer of {definition.name} (options {definition.options}), which has no gate of memory with a "
                'bias; expected such as LSTM or GRU with bias, or `keeps = "z"` in a cell of your own'
            )
        for suffix in ("", "_reverse")[: layer.directions]:
            long = torch.empty(definition.sizes["hidden_size"]).uniform_(1, longest - 1).log()
            for name, sign in gates.items():
                for side, start in (("ih", sign * long), ("hh", torch.zeros_like(long))):
                    param = definition.params.get(f"bias_{side}")
                    if param and name in param.slices:
                        at = param.rows(name, definition.sizes)
                        getattr(layer, f"{param.name}_l{k}{suffix}").narrow(0, *at).copy_(start)
