"""The recurrent layers of a `.keras` file, by Keras itself in its safe mode: no code of the file is run."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import DataError, OptionError
from ..limits import first_line, framework, one_line, open_zip
from .names import Layers

_RECURRENT = ("SimpleRNN", "LSTM", "GRU", "RNN", "Bidirectional")
_SIZES = ("units", "input_dim", "output_dim", "filters")
_CONFIG_LIMIT = 2**26


def layers_of_file(path: Path, layers: Layers | None) -> list[Any]:
    """The named layers of the model in a `.keras` file; without names its only recurrent layer.

    DataError: no such file, or Keras refuses it. OptionError: unknown names, or none where there are several layers.
    """
    what = "a .keras file, as model.save('name.keras') writes it"
    with open_zip(path, what) as archive:
        names = {entry.filename: entry.file_size for entry in archive.infolist()}
        if missing := [name for name in ("config.json", "model.weights.h5") if name not in names]:
            raise DataError(f"{path} has no {' and no '.join(missing)}; expected {what}")
        if names["config.json"] > _CONFIG_LIMIT:
            raise DataError(f"{path} has a config.json of {names['config.json']:,} bytes; expected {what}")
        try:
            config = json.loads(archive.read("config.json"))
        except Exception as error:  # zipfile and json meet damaged files with errors of many kinds
            reason = first_line(error)
            raise DataError(f"{path} is damaged: its config.json cannot be read ({reason}); expected {what}") from None
    # Keras makes the layers before it looks at the weights: sizes that the file cannot hold would only take memory.
    for key, units, least in _declared(config):
        if least > names["model.weights.h5"]:
            raise DataError(
                f"{path} is damaged: its config.json has {key}={units:,}, and its weights have "
                f"{names['model.weights.h5']:,} bytes"
            )
    keras = framework("keras", f"reading {path}", "keras")
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras and its backends raise errors of any kind
        raise DataError(f"{path} is refused by Keras: {one_line(error)}") from None
    found: dict[str, Any] = {}
    for layer in _walk(model):
        if type(layer).__name__ in _RECURRENT and found.setdefault(layer.name, layer) is not layer:
            raise OptionError(
                f"{path} has two layers named {layer.name!r}; load it with Keras, and give the layer itself"
            )
    known = ", ".join(found)
    if not found:
        raise OptionError(f"{path} has no recurrent layer, expected one of the classes {', '.join(_RECURRENT)}")
    if layers is None:
        if len(found) != 1:
            raise OptionError(f"{path} has these recurrent layers: {known}; name those to convert: layers=['name']")
        return list(found.values())
    if not layers or any(name not in found for name in layers):
        raise OptionError(f"got layers={list(layers)!r}; {path} has these recurrent layers: {known}")
    return [found[name] for name in layers if isinstance(name, str)]


def _walk(layer: Any) -> Iterator[Any]:
    """The layers of a model, and of the models and wrappers in it."""
    wrapped = [] if type(layer).__name__ == "Bidirectional" else [getattr(layer, "layer", None)]
    for inner in (*getattr(layer, "layers", []), *wrapped):
        if inner is not None:
            yield inner
            yield from _walk(inner)


def _first_units(config: Any, depth: int = 8) -> int:
    """The units of the first recurrent cell in the configuration of a layer, wrapper or model; 0: it has none."""
    if isinstance(config, list):
        names = [one.get("class_name") if isinstance(one, dict) else None for one in config]
        config = config[1] if names[:1] == ["InputLayer"] and len(config) > 1 else next(iter(config), None)
    if not isinstance(config, dict) or not depth:
        return 0
    if "recurrent_initializer" in config:
        units = config.get("units")
        return units if isinstance(units, int) else 0
    inner = (_first_units(config.get(key), depth - 1) for key in ("config", "layer", "cell", "cells", "layers"))
    return next(filter(None, inner), 0)


def _declared(config: Any) -> Iterator[tuple[str, int, int]]:
    """The sizes that a config speaks of, with the fewest bytes that such a layer's weights take."""
    todo = [config]
    while todo:
        one = todo.pop()
        if isinstance(one, dict):
            todo += one.values()
            for key in _SIZES:
                if isinstance(units := one.get(key), int):
                    yield key, units, 2 * units * (units if "recurrent_initializer" in one else 1)
            for key in ("build_config", "build_input_shape"):
                units = _first_units(one.get("config") if key == "build_config" else one)
                shapes = one.get(key)
                shapes = list(shapes.values()) if isinstance(shapes, dict) else [shapes]
                for shape in shapes:
                    if units and isinstance(shape, list) and shape and isinstance(shape[-1], int):
                        yield key, shape[-1], 2 * shape[-1] * units
        elif isinstance(one, list):
            todo += one
