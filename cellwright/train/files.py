"""Files that are whole or not there: written beside their place and renamed, with a digest of what they hold.

Tensors are safetensors, everything else JSON; nothing that is read can run code.
"""

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..errors import RunError

_DIGEST = "sha256"


def write(path: Path, data: bytes) -> None:
    """Replace a file at once: after a crash at any moment it is the old one or the new one.

    RunError: it cannot be written, and is the old one.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        sync_folder(path.parent)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise RunError(
            f"{path} cannot be written: {error.strerror or error}; what was there before is unchanged"
        ) from None
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a loss of power, where the system offers that."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read(path: Path, mend: str) -> bytes:
    """The bytes of a file. RunError, with the mend: it is not there or cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise RunError(f"{path} is missing; {mend}") from None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}; {mend}") from None


def digest(data: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def pack(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """One safetensors file with a digest over its metadata and over the name, dtype, shape and bytes of each tensor."""
    # Copies, because safetensors refuses tensors that are views of one piece of memory.
    held = {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
    return save(held, {**metadata, _DIGEST: _content(held, metadata)})


def metadata_of(path: Path, data: bytes, mend: str) -> dict[str, str]:
    """The metadata of a safetensors file, nothing verified. RunError, with the mend: there is none."""
    try:
        (size,) = struct.unpack_from("<Q", data)
        metadata = json.loads(data[8 : 8 + size].decode("utf-8"))["__metadata__"]
        return {str(key): str(value) for key, value in metadata.items()}
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise RunError(f"{path} is damaged: it does not begin like a file of weights; {mend}") from None


def unpack(path: Path, data: bytes, mend: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of `pack`. RunError, with the mend: truncated, edited, or not such a file."""
    metadata = metadata_of(path, data, mend)
    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError, RuntimeError) as error:
        raise RunError(f"{path} is damaged ({error}); {mend}") from None
    expected = metadata.pop(_DIGEST, None)
    if expected != _content(tensors, metadata):
        raise RunError(f"{path} was changed after it was written: its digest differs; {mend}")
    return tensors, metadata


def _content(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """The digest that `pack` stores."""
    content = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name in sorted(tensors):
        t = tensors[name]
        content.update(json.dumps([name, str(t.dtype), list(t.shape)]).encode())
        content.update(t.reshape(-1).view(torch.uint8).numpy().data)
    return content.hexdigest()
