"""Images to what a decoder looks at: a small convolutional net, or features as they are given."""

from typing import Any

import torch
from torch import Tensor, nn

_PLACES = 64  # of the grid that attention looks over, at most


def grid(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Height and width after each halving of an image [H, W, C], until there are few places; at least one halving."""
    H, W = shape[:2]
    sizes: list[tuple[int, int]] = []
    while not sizes or H * W > _PLACES:
        H, W = -(-H // 2), -(-W // 2)
        sizes.append((H, W))
    return sizes


class ImageEncoder(nn.Module):
    """A grid of places, each with M numbers, and the largest of them.

        uint8 [H, W, C]: convolutions 3 x 3 with stride 2, each with a batch norm and a ReLU, until there are at most
        64 places; float [S, F]: W norm(x) + b at each of the S places.
        m_s = f_s + p_s         p_s: learned, so that attention knows where a place is
        e   = max over s of f_s

    Most of a drawn image is background. A mean over its places, or a norm within an image, hides what differs.

    Xu et al. 2015, Show, Attend and Tell, where the convolutions are those of a large net that was trained before.

    Args:
        shape: of one image, [H, W, C] or [S, F].
        features: M.
        dropout: on m_s.
    """

    def __init__(self, shape: tuple[int, ...], features: int, dropout: float) -> None:
        super().__init__()
        self.shape = shape
        if len(shape) == 3:
            sizes = grid(shape)
            parts: list[nn.Module] = []
            before = shape[2]
            for k in range(len(sizes)):
                after = features if k == len(sizes) - 1 else max(16, features >> (len(sizes) - 1 - k))
                parts += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
                before = after
            places = sizes[-1][0] * sizes[-1][1]
            self.read = nn.Sequential(*parts)
        else:
            places = shape[0]
            self.read = nn.Sequential(nn.LayerNorm(shape[1]), nn.Linear(shape[1], features))
        self.position = nn.Parameter(0.1 * torch.randn(places, 1, features))
        self.dropout = nn.Dropout(dropout)

    def forward(self, source: Tensor, lengths: Any = None) -> tuple[Tensor, Tensor, None]:
        """source [B, H, W, C] of uint8 or [B, S, F]: m [S, B, M], e [B, M], and no lengths."""
        if len(self.shape) == 3:
            # Pixels as they lie in memory are the channels-last form of [B, C, H, W].
            found = self.read(source.permute(0, 3, 1, 2).float() / 127.5 - 1)  # [B, M, h, w]
            found = found.flatten(2).permute(2, 0, 1)
        else:
            found = self.read(source).transpose(0, 1)
        return self.dropout(found + self.position), self.dropout(found.amax(0)), None
