"""Sequences of different lengths without padding: the valid inputs of all steps, one below the other."""

from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from .memory import empty


@dataclass(frozen=True)
class Batch:
    """Which rows of a padded batch [T, B] are computed, and in which order.

    Row by row of packed memory: the sequences that are still running at step 0, then at step 1, ... Sequences are
    dealt out to the threads like cards, longest first, so that each has as much to do; those of one thread are
    neighbours. Against time, each sequence begins with its own last input.

    steps: those of the longest sequence.
    rows: [N] indices into [T * B] of the valid inputs, in the order of the loop.
    order: [B] sequences by their place.
    table: [threads, steps, 4] as the kernel reads it (`kernel.rows`), for the loop forward, and for the way back.
    before: [N] where in the memory of a state [B + N] the state before each row lies.
    last: [B] the same after the last valid step.
    lengths: [B] valid steps of each sequence.
    valid: [T, B] as given: the padding is false.
    reverse: whether the loop goes against time.
    """

    steps: int
    rows: Tensor
    order: Tensor
    table: Tensor
    before: Tensor
    last: Tensor
    lengths: Tensor
    valid: Tensor
    reverse: bool
    _memory: Tensor  # [1 + steps, B] by place: where in the memory of a state it lies after so many steps
    _place: Tensor  # [B] of each sequence

    @cached_property
    def back(self) -> Tensor:
        """The table of the loop back."""
        return self.table.flip(1).contiguous()

    @cached_property
    def after(self) -> Tensor:
        """[T, B] where in the memory of a state the one after each input lies; in the padding, the one that stays."""
        every = torch.arange(len(self.valid), device=self.valid.device).unsqueeze(1)
        done = self.lengths - every if self.reverse else every + 1  # steps
        return self._memory[torch.minimum(done.clamp(min=0), self.lengths), self._place]

    def spread(self, values: Tensor) -> Tensor:
        """Rows [N, n] of packed memory as [T, B, n], with zero in the padding."""
        whole = values.new_zeros(self.valid.numel(), values.shape[1]).index_copy_(0, self.rows, values)
        return whole.view(*self.valid.shape, -1)

    @property
    def size(self) -> int:
        """N, the number of valid inputs."""
        return len(self.rows)


def batch_of(valid: Tensor, reverse: bool, threads: int) -> Batch:
    """The order of computation for `valid` [T, B], true at the first steps of each sequence."""
    B = valid.shape[1]
    arange = partial(torch.arange, device=valid.device)
    lengths = valid.sum(0)
    by_length = torch.argsort(lengths, descending=True, stable=True)
    order = torch.cat([by_length[j::threads] for j in range(threads)])
    bounds = [0]
    for j in range(threads):
        bounds.append(bounds[-1] + len(by_length[j::threads]))
    n = lengths[order]  # by place
    steps = int(lengths.max())
    time = arange(steps).unsqueeze(1)
    running = time < n  # [steps, B] by place
    number = running.flatten().cumsum(0).view(steps, B) - 1  # the row in packed memory
    input_time = n - 1 - time if reverse else time.expand(steps, B)
    rows = (input_time * B + order)[running]
    memory = torch.cat([arange(B).unsqueeze(0), B + number])  # [1 + steps, B]: the memory of a state
    before = memory[:-1][running]
    # A thread's rows of one step are neighbours: those of its sequences that are still running.
    table = empty(threads, steps, 4, dtype=torch.int64)
    for j in range(threads):
        first, end = bounds[j], bounds[j + 1]
        table[j, :, 0] = first
        table[j, :, 1] = first + running[:, first:end].sum(1)
        table[j, :, 2] = (number[:, first] if end > first else 0) - first
        table[j, :1, 3] = 0
        table[j, 1:, 3] = B + table[j, :-1, 2]
    final = memory[n, arange(B)]
    inverse = torch.empty_like(order)
    inverse[order] = arange(B)
    return Batch(steps, rows, order, table, before, final[inverse], lengths, valid, reverse, memory, inverse)
