"""An encoder-decoder learns to write a word backwards, measured on words that it has not seen."""

import pytest
import torch
from torch import Tensor

from cellwright.topologies import encoder_decoder

SYMBOLS = 10  # 0 starts, 1 ends, 2 to 9 are letters
LONGEST = 7


def words(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Words of 1 to 7 letters, the words backwards, and their lengths; 8^7 words alone have 7 letters."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, LONGEST + 1, (count,), generator=generator)
    forwards = torch.randint(2, SYMBOLS, (LONGEST, count), generator=generator)
    steps = (lengths - 1 - torch.arange(LONGEST).unsqueeze(1)).clamp(min=0)
    return forwards, forwards.gather(0, steps), lengths


@pytest.mark.parametrize("attention", ["luong", "bahdanau"])
def test_reversing_words(attention: str) -> None:
    net = encoder_decoder(SYMBOLS, SYMBOLS, 48, cell="gru", attention=attention, bidirectional=True, embedding_size=24)
    optimiser = torch.optim.Adam(net.parameters(), lr=8e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 8e-3, total_steps=160)
    for k in range(160):
        source, target, lengths = words(64, 1000 + k)
        loss = net.loss(source, target, source_lengths=lengths, target_lengths=lengths)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    source, target, lengths = words(500, 1)
    net.eval()
    for found in (
        net.greedy(source, lengths, max_length=LONGEST + 2),
        net.beam(source, lengths, max_length=LONGEST + 2, beam_width=3),
    ):
        ids, n = found.best
        right = n == lengths
        for b in range(500):
            right[b] &= torch.equal(ids[: n[b], b], target[: n[b], b])
        exact = right.float().mean().item()
        assert exact > 0.95
