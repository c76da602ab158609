"""How values lie in memory: rows that fill whole vector registers, and matrices in the order of their reading."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...lang.graph import Param
from ...lang.plan import Product
from .layout import GRANULE, blocks_per_tile
from .machine import Machine


@dataclass
class Array:
    """Memory that slots point into: `base` is where step 0 of the loop finds row 0; strides in numbers."""

    tensor: Tensor
    offset: int = 0
    row: int = 0
    step: int = 0

    def triple(self, column: int = 0) -> tuple[int, int, int]:
        """Pointer, row stride and step stride, beginning at a column."""
        return self.tensor.data_ptr() + 4 * (self.offset + column), self.row, self.step


def width_of(units: int, machine: Machine, blocks: int = 1) -> int:
    """Units, filled up to whole blocks or groups of blocks."""
    grain = blocks * machine.lanes
    return -(-units // grain) * grain


def readable(v: Tensor, machine: Machine) -> Tensor:
    """The values with the units side by side, and readable up to the end of their last block."""
    units = v.shape[-1]
    if units % machine.lanes:
        return F.pad(v, (0, width_of(units, machine) - units))
    return v if v.stride(-1) == 1 or units == 1 else v.contiguous()


def sequence(v: Tensor, backwards: bool) -> Array:
    """A slot's array over all steps of v [T, B, n], from its first or its last."""
    step, row = v.stride(0), v.stride(1)
    return Array(v, (len(v) - 1) * step if backwards else 0, row, -step if backwards else step)


def pack(product: Product, param: Param, weight: Tensor, sizes: dict[str, int], machine: Machine) -> Tensor:
    """A matrix in the order in which a kernel reads it: [tiles, depth, parts, blocks of a tile x lanes].

    Kept for as long as the weight is not changed.
    """
    tile = blocks_per_tile(product) * machine.lanes
    parts = [weight.narrow(0, *param.rows(part, sizes)) for part in product.parts]
    if product.transposed:
        columns = weight.shape[1]
        width = width_of(columns, machine, GRANULE)
        blocks = [F.pad(p, (0, width - columns, 0, width_of(len(p), machine) - len(p))) for p in parts]
        rows = torch.cat(blocks) if len(blocks) > 1 else blocks[0]  # [depth, width]
        return rows.view(len(rows), width // tile, tile).transpose(0, 1).contiguous()
    depth = weight.shape[1]
    rows_, width = len(parts[0]), width_of(len(parts[0]), machine, GRANULE)
    stacked = torch.stack(parts) if len(parts) > 1 else parts[0].unsqueeze(0)  # [parts, units, depth]
    stacked = F.pad(stacked, (0, width_of(depth, machine) - depth, 0, width - rows_))
    per = blocks_per_tile(product)
    shaped = stacked.view(len(parts), width // tile, per, machine.lanes, stacked.shape[2])
    # [tiles, depth, blocks, parts, lanes]: the order of the accumulators of a tile
    return shaped.permute(1, 4, 2, 0, 3).contiguous()
