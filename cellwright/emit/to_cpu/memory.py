"""How values lie in memory, and the arguments of a kernel that say so."""

import ctypes
import mmap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ...lang.graph import Graph, Param
from . import threads
from .layout import DEEP, GRANULE, HEAD, STILL, Layout, Slot
from .machine import Machine

LARGE = 2**22  # bytes from which memory is asked for in large pages


@dataclass(frozen=True)
class Array:
    """Where a slot lies: in the tensor `name`, step 0 of the loop finds row 0 at `offset`; strides in numbers.

    shift: which shift of rows applies when sequences have lengths (`layout`). bytes: of a number.
    """

    name: str
    offset: int = 0
    row: int = 0
    step: int = 0
    shift: int = STILL
    bytes: int = 4

    def turned(self, steps: int) -> "Array":
        """The same for a loop that goes the other way."""
        return replace(self, offset=self.offset + (steps - 1) * self.step, step=-self.step)

    def moved(self, columns: int) -> "Array":
        """The same, from a later column on."""
        return replace(self, offset=self.offset + columns)

    def narrowed(self, name: str) -> "Array":
        """The same in a tensor of bfloat16."""
        return replace(self, name=name, bytes=2)


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Memory for a kernel, whatever torch's default dtype and device are.

    The system makes fresh memory page by page, as it is written: with pages of 4 KiB, that took up to a seventh of a
    large training step (docs/cpu-kernels.md).
    """
    made = torch.empty(*shape, dtype=dtype, device="cpu")
    advise = _advise()
    if advise is not None and made.nbytes >= LARGE:
        start = -(-made.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        # Advice only: where it cannot be taken, nothing changes.
        advise(start, made.data_ptr() + made.nbytes - start, mmap.MADV_HUGEPAGE)
    return made


@cache
def _advise() -> Callable[[int, int, int], int] | None:
    """The C library's madvise, where the system has large pages to be asked for."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    function = ctypes.CDLL(None).madvise
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return function


def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The same, of zeros."""
    return torch.zeros(*shape, dtype=dtype, device="cpu")


def width_of(units: int, machine: Machine, blocks: int = 1) -> int:
    """Units, filled up to whole blocks or groups of blocks."""
    grain = blocks * machine.lanes
    return -(-units // grain) * grain


def readable(v: Tensor, machine: Machine) -> Tensor:
    """The values with the units side by side, and readable up to the end of their last block."""
    units = v.shape[-1]
    if units % machine.lanes:
        return F.pad(v, (0, width_of(units, machine) - units))
    return side_by_side(v)


def side_by_side(v: Tensor) -> Tensor:
    """The values with the units of a row side by side."""
    return v if v.stride(-1) == 1 or v.shape[-1] == 1 else v.contiguous()


def filled(v: Tensor, machine: Machine) -> Tensor:
    """Contiguous memory with the values and zeros behind each row, up to whole blocks."""
    return F.pad(v.float(), (0, width_of(v.shape[-1], machine) - v.shape[-1])).contiguous()


def barrier(count: int) -> Tensor:
    """Where `count` threads meet: a line of the cache for all, and one for each."""
    return zeros(8 * (count + 1), dtype=torch.int64)


class Arguments:
    """The arguments of a kernel for one shape of its call; only addresses are filled in at each.

    Args:
        layout, graph, params, machine: of the kernel.
        head: entries that differ from 0; an Array stands for an address.
        count: of threads.
        array: where a slot lies that is not a slice of a vector of weights.
        narrow: whether the operands of products are bfloat16, two in a number of a panel.
    """

    def __init__(
        self,
        layout: Layout,
        graph: Graph,
        params: Mapping[str, Param],
        machine: Machine,
        head: Mapping[str, "int | Array"],
        count: int,
        array: Callable[[Slot], Array],
        narrow: bool,
    ) -> None:
        self.count, self.panels = count, 0
        self._numbers: list[int] = []
        self._places: list[tuple[int, str, int, int]] = []  # position, tensor; offset and step in bytes
        sizes = graph.sizes
        number, total = threads.addresses(count)
        head = {"thread_number": number, "thread_count": total, "yield_now": threads.yield_address(), **head}
        if count > 1:
            head["barrier"] = Array("barrier")
        for name in HEAD:
            self._add(head.get(name, 0))
        for name in layout.sizes:
            self._add(sizes[name])
        for product in layout.products:
            matrix = params[product.matrix]
            units = sizes[graph.nodes[product.results[0]].size]
            depth = sum(sizes[graph.nodes[i].size] for i in product.sources)
            self._add(Array("panels", self.panels))
            per = DEEP if narrow and machine.tiles else 1
            rows = sum(-(-sizes[graph.nodes[i].size] // (per + narrow * per)) * per for i in product.sources)
            self.panels += rows * len(product.results) * width_of(units, machine, GRANULE)
            stride = units if product.transposed else depth
            self._add(stride)
            for part in product.parts:
                self._add(Array(product.matrix, matrix.rows(part, sizes)[0] * stride))
        for slot in layout.slots:
            vector = slot if slot.node < 0 else graph.nodes[slot.node]
            of_weights = slot.node < 0 or graph.nodes[slot.node].op == "param"
            place = Array(vector.name, params[vector.name].rows(vector.part, sizes)[0]) if of_weights else array(slot)
            self._add(place)
            self._numbers += [place.row, place.step, place.shift]
        self._template = (ctypes.c_int64 * len(self._numbers))(*self._numbers)

    def _add(self, value: "int | Array") -> None:
        if isinstance(value, Array):
            offset, step = value.bytes * value.offset, value.bytes * value.step
            self._places.append((len(self._numbers), value.name, offset, step))
            value = 0
        self._numbers.append(value)

    def scratch(self) -> dict[str, Tensor]:
        """Memory that the kernel needs besides what it is given: for one call, or for calls that go on from another.

        Kernels do not share a barrier: it counts the arrivals of as many threads as this one has.
        """
        return {"panels": empty(self.panels), "barrier": barrier(self.count)}

    def run(
        self,
        function: int,
        tensors: Mapping[str, Tensor],
        *,
        first: int = 0,
        moved: Mapping[str, int] | None = None,
        **head: int,
    ) -> None:
        """Call the kernel on these tensors, from step `first` on.

        moved: by how many bytes a tensor begins earlier or later than it is given. head: other entries of the head.
        """
        arguments = self.bind(tensors, first, moved or {})  # alive until the call is over
        for name, value in head.items():
            arguments[HEAD.index(name)] = value
        threads.run(function, ctypes.addressof(arguments), self.count)

    def bind(
        self, tensors: Mapping[str, Tensor], first: int = 0, moved: Mapping[str, int] | None = None
    ) -> "ctypes.Array[ctypes.c_int64]":
        """The arguments for these tensors, whose memory must stay where it is."""
        base = {name: t.data_ptr() for name, t in tensors.items()}
        for name, distance in (moved or {}).items():
            base[name] += distance
        arguments = type(self._template).from_buffer_copy(self._template)
        for position, name, offset, step in self._places:
            arguments[position] = base[name] + offset + first * step
        return arguments
