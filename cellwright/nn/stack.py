"""The cells of a layer object, one per layer: made from a class, or checked when they come as a list."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from ..errors import OptionError
from ..lang import Definition, Equations
from ..lang.cell import positive
from .cell import Cell
from .weights import weights_of

Layer = Equations | Definition


def definition_of(layer: Layer) -> Definition:
    """The traced equations of a layer."""
    return layer if isinstance(layer, Definition) else layer.definition()


def shown(layer: Layer) -> str:
    """A layer with its sizes, and the options that are not at their defaults."""
    usual = {} if isinstance(layer, Definition) else layer.defaults()
    definition = definition_of(layer)
    options = "".join(f", {k}={v!r}" for k, v in definition.options.items() if k not in usual or v != usual[k])
    return f"{definition.name}({definition.input_size}, {definition.sizes['hidden_size']}{options})"


def lent(cell: Any) -> dict[str, nn.Parameter]:
    """The weights that a cell of a list lends to the layer."""
    own = weights_of(cell, cell.definition())
    for name, weight in own.items():
        if not isinstance(weight, nn.Parameter):
            raise OptionError(
                f"got a {type(cell).__name__} whose {name} is not a plain parameter, so it cannot be lent to a layer; "
                f"make the layer first, and parametrise its weights"
            )
    return own  # type: ignore[return-value]


def lent_kind(layers: Sequence[Layer], device: Any, dtype: Any) -> tuple[Any, Any]:
    """Device and dtype of a layer of a list of cells: those that the cells have, where they have weights."""
    weights = [w for cell in layers if isinstance(cell, Cell) for w in weights_of(cell, cell.definition()).values()]
    kinds = {(w.dtype, w.device) for w in weights}
    if len(kinds) > 1:
        found = ", ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds))
        raise OptionError(f"got cells with weights of {found} in one list, expected one dtype and one device")
    for own_dtype, own_device in kinds:
        other = torch.device(device or own_device)
        if dtype not in (None, own_dtype) or other.type != own_device.type:
            raise OptionError(
                f"got dtype={dtype} and device={device} for cells with weights of {own_dtype} on {own_device}; make "
                "the cells so, or move the layer"
            )
        return own_device, own_dtype
    return device, dtype


def layers_of(
    cell: type[Equations],
    input_size: int | None,
    hidden_size: int | None,
    num_layers: int,
    beside: int,
    bias: bool | Literal["input"],
    options: dict[str, Any],
) -> list[Layer]:
    """One cell per layer from a class; `beside`: how many outputs of a layer stand side by side for the next."""
    if not issubclass(cell, Equations):
        raise OptionError(f"got the class {cell.__name__} as cell, expected one derived from cellwright.Cell")
    size, hidden = positive("input_size", input_size), positive("hidden_size", hidden_size)
    layers: list[Layer] = []
    for _ in range(positive("num_layers", num_layers)):
        # On "meta", a Cell draws no weights of its own: the layer draws them, in the order of torch.nn.
        with torch.device("meta"):
            layers.append(cell(size, hidden, bias=bias, **options))
        size = beside * definition_of(layers[-1]).output_size
    return layers


def listed_layers(cell: Any, more: bool, beside: int) -> list[Layer]:
    """The cells of a list, checked to fit each other; `beside` as in `layers_of`."""
    layers = list(cell) if isinstance(cell, (list, tuple)) else [cell]
    if not layers or not all(isinstance(layer, (Equations, Definition)) for layer in layers):
        got = ", ".join(type(layer).__name__ for layer in layers) or "an empty list"
        raise OptionError(f"got {got} as cell, expected a class of cells, or a list of cells such as LSTMCell(10, 20)")
    if more:
        raise OptionError("got sizes, num_layers, bias or options beside a list of cells, which have their own")
    for k, layer in enumerate(layers):
        if isinstance(layer, Cell) and any(layer is other for other in layers[:k]):
            raise OptionError(
                f"got the same cell again as layer {k}, which would share its weights; make one per layer"
            )
        before = beside * definition_of(layers[k - 1]).output_size if k else definition_of(layer).input_size
        if definition_of(layer).input_size != before:
            raise OptionError(
                f"got layer {k} with input_size={definition_of(layer).input_size}, "
                f"but layer {k - 1} gives {before} features"
            )
        if masks := definition_of(layer).masks:
            raise OptionError(
                f"got layer {k} with the inputs {', '.join(masks)} besides x; layers draw their own masks"
            )
    return layers
