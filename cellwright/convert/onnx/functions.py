"""What stands around recurrent operators in models of other libraries: shapes and arithmetic, as functions of torch.

One function per operator: inputs first, attributes by name. An attribute that a function does not take is refused by
the importer, which also names the node of whatever is raised here.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import DataError, InputError
from .file import attributes_of, check_attributes, place_of, tensor_of, torch_type

_LARGEST = 2**28  # numbers in a tensor that a shape alone asks for


def _sized(shape: list[int]) -> list[int]:
    """A shape that is worth the memory."""
    if min(shape, default=0) < 0 or math.prod(shape) > _LARGEST:
        raise InputError(f"got the shape {shape}, expected at most {_LARGEST} numbers")
    return shape


def integers(value: Any) -> list[int]:
    """Whole numbers from an attribute or from a tensor."""
    return [int(n) for n in (value.flatten().tolist() if isinstance(value, Tensor) else value)]


def _axes(given: Tensor | None, axes: Any) -> list[int] | None:
    """Axes, which older models have as an attribute and newer ones as an input."""
    value = axes if given is None else given
    return None if value is None else integers(value)


def _squeeze(x: Tensor, where: Tensor | None = None, /, *, axes: Any = None) -> Tensor:
    chosen = _axes(where, axes)
    if chosen is None:
        return x.squeeze()
    for a in chosen:
        if x.shape[a] != 1:
            raise InputError(f"axis {a} of the shape {list(x.shape)} is not 1")
    return x.squeeze(tuple(chosen))


def _unsqueeze(x: Tensor, where: Tensor | None = None, /, *, axes: Any = None) -> Tensor:
    chosen = _axes(where, axes) or []
    rank = x.dim() + len(chosen)
    for a in sorted(a % rank for a in chosen):
        x = x.unsqueeze(a)
    return x


def _reshape(x: Tensor, shape: Tensor, /, *, allowzero: int = 0) -> Tensor:
    wanted = integers(shape)
    if not allowzero:
        wanted = [x.shape[k] if n == 0 else n for k, n in enumerate(wanted)]
    return x.reshape(wanted)


def _flatten(x: Tensor, /, *, axis: int = 1) -> Tensor:
    axis = axis + x.dim() if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def _slice(x: Tensor, *given: Tensor | None, starts: Any = None, ends: Any = None, axes: Any = None) -> Tensor:
    a, b, c, d = [*given, None, None, None, None][:4]
    firsts, lasts = integers(starts if a is None else a), integers(ends if b is None else b)
    chosen = _axes(c, axes) or list(range(len(firsts)))
    steps = [1] * len(firsts) if d is None else integers(d)
    for first, last, axis, step in zip(firsts, lasts, chosen, steps, strict=True):
        index = torch.tensor(range(x.shape[axis])[first:last:step], dtype=torch.int64, device=x.device)
        x = x.index_select(axis, index)
    return x


def _split(
    x: Tensor, sizes: Tensor | None = None, /, *, axis: int = 0, split: Any = None, num_outputs: int | None = None
) -> tuple[Tensor, ...]:
    given = sizes if sizes is not None else split
    if given is not None:
        return tuple(torch.split(x, integers(given), axis))
    if num_outputs is None:
        raise InputError("got neither sizes nor num_outputs")
    return tuple(torch.split(x, -(-x.shape[axis] // num_outputs), axis))


def _gather(x: Tensor, indices: Tensor, /, *, axis: int = 0) -> Tensor:
    n = x.shape[axis]
    if indices.numel() and not bool(((indices >= -n) & (indices < n)).all()):
        raise InputError(f"got an index outside of the {n} entries of axis {axis}")
    flat = (indices.long() % n if n else indices.long()).flatten()
    at = axis % x.dim()
    return x.index_select(at, flat).reshape((*x.shape[:at], *indices.shape, *x.shape[at + 1 :]))


def _expand(x: Tensor, shape: Tensor, /) -> Tensor:
    wanted = integers(shape)
    wanted = [1] * (x.dim() - len(wanted)) + wanted
    own = [1] * (len(wanted) - x.dim()) + list(x.shape)
    return x.expand(_sized([n if m == 1 else m for n, m in zip(own, wanted, strict=True)]))


def _shape(x: Tensor, /, *, start: int = 0, end: int | None = None) -> Tensor:
    return torch.tensor(list(x.shape)[start:end], dtype=torch.int64)


def _constant(*, value: Any = None, **others: Any) -> Tensor:
    if value is not None:
        return tensor_of(value)
    ((name, numbers),) = others.items()
    return torch.tensor(numbers, dtype=torch.float32 if "float" in name else torch.int64)


def _constant_of_shape(shape: Tensor, /, *, value: Any = None) -> Tensor:
    filled = torch.zeros(1) if value is None else tensor_of(value)
    return torch.full(_sized(integers(shape)), filled.item(), dtype=filled.dtype)


def _range(start: Tensor, limit: Tensor, delta: Tensor, /) -> Tensor:
    if not delta.item():
        raise InputError("got a range with steps of 0")
    _sized([max(0, math.ceil((limit.item() - start.item()) / delta.item()))])
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


def _one_hot(indices: Tensor, depth: Tensor, values: Tensor, /, *, axis: int = -1) -> Tensor:
    n = int(depth.item())
    _sized([*indices.shape, n])
    wrapped = torch.where(indices < 0, indices + n, indices).unsqueeze(-1)
    hit = wrapped == torch.arange(n, device=indices.device)
    return torch.where(hit, values[1], values[0]).movedim(-1, axis)


def _cast(x: Tensor, /, *, to: int, saturate: int = 1) -> Tensor:
    return x.to(torch_type(to, "attribute 'to'"))


def _clip(
    x: Tensor, low: Tensor | None = None, high: Tensor | None = None, /, *, min: Any = None, max: Any = None
) -> Tensor:
    low = low if low is not None else None if min is None else x.new_tensor(min)
    high = high if high is not None else None if max is None else x.new_tensor(max)
    return x if low is None and high is None else torch.clamp(x, low, high)


def _gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    /,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    result = alpha * ((a.t() if transA else a) @ (b.t() if transB else b))
    return result if c is None else result + beta * c


def _div(a: Tensor, b: Tensor, /) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _reduce(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A reduction over axes, over all of them where none are named."""

    def reduce(
        x: Tensor, where: Tensor | None = None, /, *, axes: Any = None, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> Tensor:
        chosen = _axes(where, axes)
        if not chosen and noop_with_empty_axes:
            return x
        return function(x, tuple(chosen) if chosen else tuple(range(x.dim())), keepdim=bool(keepdims))

    return reduce


def _reverse_sequence(x: Tensor, lengths: Tensor, /, *, batch_axis: int = 1, time_axis: int = 0) -> Tensor:
    T = x.shape[time_axis]
    t = torch.arange(T, device=x.device).unsqueeze(1)
    source = torch.where(t < lengths, lengths - 1 - t, t)  # [T, B]
    moved = x.movedim((time_axis, batch_axis), (0, 1))
    index = source.reshape(*source.shape, *[1] * (x.dim() - 2)).expand_as(moved)
    return moved.gather(0, index).movedim((0, 1), (time_axis, batch_axis))


def _fold(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """An operation on two values, for any number of them."""

    def fold(first: Tensor, *rest: Tensor) -> Tensor:
        for other in rest:
            first = function(first, other)
        return first

    return fold


def _prod(x: Tensor, axes: tuple[int, ...], keepdim: bool) -> Tensor:
    for a in sorted((a % x.dim() for a in axes), reverse=True):
        x = x.prod(a, keepdim=keepdim)
    return x


def _top_k(x: Tensor, k: Tensor, /, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> tuple[Tensor, Tensor]:
    count = int(k.item())
    # Of equal numbers the first one comes first.
    values, places = torch.sort(x, dim=axis, descending=bool(largest), stable=True)
    return values.narrow(axis, 0, count), places.narrow(axis, 0, count)


def _scatter_elements(
    x: Tensor, indices: Tensor, updates: Tensor, /, *, axis: int = 0, reduction: str = "none"
) -> Tensor:
    n = x.shape[axis]
    if indices.numel() and not bool(((indices >= -n) & (indices < n)).all()):
        raise InputError(f"got an index outside of the {n} entries of axis {axis}")
    flat = torch.where(indices < 0, indices + n, indices).long()
    if reduction == "none":
        return x.scatter(axis, flat, updates)
    ways = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
    if reduction not in ways:
        raise InputError(f"got the attribute reduction={reduction[:40]!r}, expected none, {', '.join(ways)}")
    return x.scatter_reduce(axis, flat, updates, ways[reduction])


def _layer_norm(
    x: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    /,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> tuple[Tensor, ...]:
    over = tuple(range(axis % x.dim(), x.dim()))
    mean = x.mean(over, keepdim=True)
    inverse = torch.rsqrt((x - mean).square().mean(over, keepdim=True) + epsilon)
    result = (x - mean) * inverse * scale
    return (result if bias is None else result + bias), mean, inverse


def _dropout(
    x: Tensor, share: Tensor | None = None, training: Tensor | None = None, /, *, ratio: float = 0.5, seed: int = 0
) -> tuple[Tensor, Tensor]:
    if training is not None and training.item() and (share is None or share.item()):
        raise InputError("got dropout in training mode, expected a model for inference")
    return x, torch.ones_like(x, dtype=torch.bool)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    # shapes
    "Identity": lambda x, /: x,
    "Dropout": _dropout,
    "Transpose": lambda x, /, *, perm=None: x.permute(*(reversed(range(x.dim())) if perm is None else perm)),
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Slice": _slice,
    "Split": _split,
    "Concat": lambda *values, axis: torch.cat(values, axis),
    "Gather": _gather,
    "Expand": _expand,
    "Shape": _shape,
    "Size": lambda x, /: torch.tensor(x.numel()),
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "OneHot": _one_hot,
    "Cast": _cast,
    "CastLike": lambda x, like, /, *, saturate=1: x.to(like.dtype),
    "ScatterElements": _scatter_elements,
    "TopK": _top_k,
    "ReverseSequence": _reverse_sequence,
    # arithmetic
    "Add": lambda a, b, /: a + b,
    "Sub": lambda a, b, /: a - b,
    "Mul": lambda a, b, /: a * b,
    "Div": _div,
    "Pow": lambda a, b, /: torch.pow(a, b).to(a.dtype),
    "Neg": torch.neg,
    "Abs": torch.abs,
    "Sqrt": torch.sqrt,
    "Reciprocal": torch.reciprocal,
    "Exp": torch.exp,
    "Log": torch.log,
    "Sin": torch.sin,
    "Cos": torch.cos,
    "Erf": torch.erf,
    "Sign": torch.sign,
    "Floor": torch.floor,
    "Ceil": torch.ceil,
    "Max": _fold(torch.maximum),
    "Min": _fold(torch.minimum),
    "Sum": _fold(torch.add),
    "Clip": _clip,
    "MatMul": torch.matmul,
    "Gemm": _gemm,
    "ReduceSum": _reduce(torch.sum),
    "ReduceMean": _reduce(torch.mean),
    "ReduceProd": _reduce(_prod),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMin": _reduce(torch.amin),
    "LayerNormalization": _layer_norm,
    # activations
    "Tanh": torch.tanh,
    "Sigmoid": torch.sigmoid,
    "Relu": torch.relu,
    "LeakyRelu": lambda x, /, *, alpha=0.01: F.leaky_relu(x, alpha),
    "ThresholdedRelu": lambda x, /, *, alpha=1.0: torch.where(x > alpha, x, 0.0),
    "Elu": lambda x, /, *, alpha=1.0: F.elu(x, alpha),
    "Selu": lambda x, /, *, alpha=1.67326319217681884765625, gamma=1.05070102214813232421875: gamma * F.elu(x, alpha),
    "Gelu": lambda x, /, *, approximate="none": F.gelu(x, approximate=approximate),
    "HardSigmoid": lambda x, /, *, alpha=0.2, beta=0.5: torch.clamp(alpha * x + beta, 0.0, 1.0),
    "Softplus": lambda x, /: torch.logaddexp(x, torch.zeros_like(x)),
    "Softsign": F.softsign,
    "Softmax": lambda x, /, *, axis=-1: torch.softmax(x, axis),
    "LogSoftmax": lambda x, /, *, axis=-1: torch.log_softmax(x, axis),
    # comparisons
    "Where": lambda condition, a, b, /: torch.where(condition, a, b),
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Equal": torch.eq,
    "Not": torch.logical_not,
    "And": torch.logical_and,
    "Or": torch.logical_or,
    "Xor": torch.logical_xor,
    "IsNaN": torch.isnan,
}


def constants_of(graph: Any) -> dict[str, Tensor]:
    """The weights of a checked graph and what its Constant nodes hold, by name."""
    found = {tensor.name: tensor_of(tensor) for tensor in graph.initializer}
    nodes = (node for node in graph.node if node.op_type == "Constant" and node.output[0])
    return found | {node.output[0]: _constant_of(node) for node in nodes}


def _constant_of(node: Any) -> Tensor:
    """The value of a Constant node."""
    attributes = attributes_of(node)
    kinds = ("value", "value_float", "value_floats", "value_int", "value_ints")
    check_attributes(place_of(node), attributes, kinds)
    if len(attributes) != 1:
        got = " and ".join(attributes) or "none"
        raise DataError(f"{place_of(node)}: got the attributes {got}, expected one of {', '.join(kinds)}")
    result: Tensor = _constant(**attributes)
    return result


# Operators that meant something else before this version of ONNX.
SINCE = {"TopK": 10, "Cast": 6, "Concat": 4, "Dropout": 7, "Selu": 6, "Softmax": 13, "LogSoftmax": 13, "Scan": 8,
         "Reshape": 5, "Add": 7, "Sub": 7, "Mul": 7, "Div": 7, "Pow": 7, "Less": 7, "Greater": 7, "Equal": 7, "And": 7,
         "Or": 7, "Xor": 7, "RNN": 7, "LSTM": 7, "GRU": 7}  # fmt: skip
