"""ONNX files, read with care: nothing in them is run, and no size in them is believed before the data agree with it."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import DataError, InputError
from ..limits import framework, one_line

LIMIT = 2**31 - 1  # bytes of a file: protobuf's own; and of its external data together
_RANK = 32
_NODES = 100_000  # of a model and its weights
_NAME = 1000  # characters

# ONNX's number of a type: torch's, its name, and the field that holds numbers which are not raw bytes.
TYPES: dict[int, tuple[torch.dtype, str, str]] = {
    1: (torch.float32, "float32", "float_data"),
    2: (torch.uint8, "uint8", "int32_data"),
    3: (torch.int8, "int8", "int32_data"),
    5: (torch.int16, "int16", "int32_data"),
    6: (torch.int32, "int32", "int32_data"),
    7: (torch.int64, "int64", "int64_data"),
    9: (torch.bool, "bool", "int32_data"),
    10: (torch.float16, "float16", "int32_data"),
    11: (torch.float64, "float64", "double_data"),
    16: (torch.bfloat16, "bfloat16", "int32_data"),
}


def package() -> Any:
    """The package onnx. TargetError when it is not installed."""
    return framework("onnx", "reading and writing ONNX files", "'cellwright[onnx]'")


def type_name(number: int) -> str:
    """ONNX's own name of a type."""
    try:
        return str(package().TensorProto.DataType.Name(number))
    except ValueError:
        return f"number {number}"


def torch_type(number: int, what: str) -> torch.dtype:
    """torch's dtype. DataError: `what` has a type that is not supported."""
    if number not in TYPES:
        known = ", ".join(name for _, name, _ in TYPES.values())
        raise DataError(f"{what} has the type {type_name(number)}, expected one of {known}")
    return TYPES[number][0]


def load(source: Any) -> Any:
    """A checked `onnx.ModelProto` whose tensors hold their data, from a path, bytes or a ModelProto.

    DataError: it cannot be read, is damaged, larger than 2 GiB, against the rules of ONNX, or refers to data outside
    of its folder.
    """
    onnx = package()
    model, name, folder = onnx.ModelProto(), "the model", None
    if isinstance(source, onnx.ModelProto):
        model.CopyFrom(source)
    else:
        if isinstance(source, (str, os.PathLike)):
            path = Path(source)
            name, folder, source = str(path), path.parent, _read(path, 0, None, LIMIT)
        if not isinstance(source, (bytes, bytearray, memoryview)):
            raise InputError(f"got a {type(source).__name__} as a model, expected a path, bytes or an onnx.ModelProto")
        try:
            model.ParseFromString(bytes(source))
        except Exception as error:  # DecodeError, of whichever protobuf is installed
            raise DataError(f"{name} is not an ONNX model, or it is cut short: {one_line(error)}") from None
    if not model.HasField("graph") or not model.ir_version or not model.opset_import:
        raise DataError(f"{name} is not an ONNX model, or it is cut short: it has no graph or no version")
    if model.functions:
        own = one_line(model.functions[0].name, 80)
        raise DataError(f"{name} defines the operator {own!r} itself; expected ONNX's own only")
    _check_versions(model, name)
    _check_graph(model.graph, name, [0])
    left = LIMIT
    for where, tensor in _tensors(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            left -= _fetch(tensor, folder, f"{name}: {where}", left)
        _check(tensor, f"{name}: {where}")
    for value in (v for v in model.graph.output if v.type.HasField("tensor_type")):
        value.type.tensor_type.shape.SetInParent()  # the checker wants one, nobody reads it
    try:
        onnx.checker.check_model(model)
    except Exception as error:
        raise DataError(f"{name} is against the rules of ONNX: {one_line(error)}") from None
    return model


def tensor_of(proto: Any) -> Tensor:
    """The values of a checked tensor."""
    dtype = TYPES[proto.data_type][0]
    array = package().numpy_helper.to_array(proto)
    if dtype == torch.bfloat16:  # numpy has none of its own
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def attributes_of(node: Any) -> dict[str, Any]:
    """A node's attributes by name, with bytes as text."""
    onnx, found = package(), {}
    for attribute in node.attribute:
        if attribute.ref_attr_name or attribute.type in (
            onnx.AttributeProto.TYPE_PROTO, onnx.AttributeProto.TYPE_PROTOS
        ):  # fmt: skip
            raise DataError(f"{place_of(node)}, attribute {attribute.name!r}: its kind of value is not supported")
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        elif isinstance(value, (list, tuple)) or hasattr(value, "__len__"):
            value = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in value]
        found[attribute.name] = value
    return found


def check_attributes(place: str, attributes: Mapping[str, Any], known: Sequence[str]) -> None:
    """DataError: one of them is not among those that are known."""
    for name in attributes:
        if name not in known:
            expected = f"expected {', '.join(known)}" if known else "expected none"
            raise DataError(f"{place}, attribute {name!r}: it is not supported; {expected}")


def _read(path: Path, offset: int, length: int | None, limit: int) -> bytes:
    """Bytes of a regular file. DataError: there are none, or too many."""
    try:
        if not path.is_file():
            raise DataError(f"{path} is no file; name an ONNX model")
        size = path.stat().st_size - offset
        length = size if length is None else length
        if offset < 0 or not 0 <= length <= size:
            raise DataError(f"{path} has {size + offset} bytes, expected {length} of them from {offset} on")
        if length > limit:
            raise DataError(f"{path} holds {length} bytes, expected at most {limit}")
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(length)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path} cannot be read: {reason}") from None


def _tensors(graph: Any) -> Iterator[tuple[str, Any]]:
    """Every tensor of a graph and of those inside it, with its place."""
    if graph.sparse_initializer:
        raise DataError(f"the graph {graph.name!r} has a sparse weight, expected dense ones")
    for tensor in graph.initializer:
        yield f"the weight {tensor.name!r}", tensor
    for node in graph.node:
        for attribute in node.attribute:
            place = f"{place_of(node)}, attribute {attribute.name!r}"
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                raise DataError(f"{place} is a sparse tensor, expected a dense one")
            for tensor in ([attribute.t] if attribute.HasField("t") else []) + list(attribute.tensors):
                yield place, tensor
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from _tensors(inner)


def place_of(node: Any) -> str:
    """How messages name a node."""
    name = node.name or next((o for o in node.output if o), "")
    op = one_line(f"{node.domain}.{node.op_type}".removeprefix("."), 80)
    return f"node {name!r} ({op})"


def _check_versions(model: Any, what: str) -> None:
    """DataError: a version that the installed package cannot know."""
    newest = package().defs.onnx_opset_version()
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx") and entry.version > newest:
            raise DataError(
                f"{what} has opset {entry.version}, expected {newest} at most, which is the newest that the installed "
                "onnx knows; install a newer onnx, or export the model with an older opset"
            )


def _check_graph(graph: Any, what: str, count: list[int]) -> None:
    """Every name is text, for which protobuf gives bytes where it is none, and short; there are not too many nodes.

    count: nodes and weights so far.
    """
    count[0] += len(graph.node) + len(graph.initializer)
    if count[0] > _NODES:
        raise DataError(f"{what} has more than {_NODES:,} nodes and weights; expected fewer")
    names = [v.name for v in (*graph.input, *graph.output, *graph.initializer)]
    for node in graph.node:
        names += [node.name, node.op_type, node.domain, *node.input, *node.output]
        for attribute in node.attribute:
            names.append(attribute.name)
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                _check_graph(inner, what, count)
    for value in names:
        if not isinstance(value, str):
            raise DataError(f"{what} is damaged: {value[:80]!r} is no name in UTF-8")
        if len(value) > _NAME:
            raise DataError(f"{what} has a name of {len(value):,} characters, {value[:40]!r}..., expected {_NAME:,}")


def _fetch(tensor: Any, folder: Path | None, what: str, limit: int) -> int:
    """Put a tensor's external data into it; the number of bytes."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if not isinstance(location, str) or len(location) > _NAME:
        raise DataError(f"{what} has its data in the file {location[:80]!r}, expected a short name in UTF-8")
    if folder is None:
        raise DataError(f"{what} has its data in the file {location!r}; expected a path, so that its folder is known")
    try:
        base, path = folder.resolve(), (folder / location).resolve()
        offset, length = int(entries.get("offset", 0)), int(entries["length"]) if "length" in entries else None
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{what} has its data in the file {location!r}, which cannot be found: {error}") from None
    if base not in path.parents:
        raise DataError(f"{what} has its data in the file {location!r}, which is outside of the model's folder")
    data = _read(path, offset, length, limit)
    del tensor.external_data[:]
    tensor.data_location = package().TensorProto.DEFAULT
    tensor.raw_data = data
    return len(data)


def _check(tensor: Any, what: str) -> None:
    """The data of a tensor fill its shape exactly."""
    dtype = torch_type(tensor.data_type, what)
    dims, count = list(tensor.dims), 1
    for n in dims:
        count *= n
    if min(dims, default=0) < 0 or max(dims, default=0) > LIMIT or len(dims) > _RANK:
        raise DataError(f"{what} has the shape {short(dims)}, which no tensor can have")
    if tensor.HasField("raw_data"):
        got, want = len(tensor.raw_data), count * torch.empty(0, dtype=dtype).element_size()
    else:
        got, want = len(getattr(tensor, TYPES[tensor.data_type][2])), count
    if got != want:
        unit = "bytes" if tensor.HasField("raw_data") else "numbers"
        raise DataError(f"{what} has the shape {short(dims)}, so {want} {unit}, but the file holds {got}")


def short(dims: Sequence[int | None]) -> str:
    """A shape in words."""
    shown = ", ".join("any" if n is None else str(n) for n in dims[:8])
    return f"[{shown}, ...]" if len(dims) > 8 else f"[{shown}]"
