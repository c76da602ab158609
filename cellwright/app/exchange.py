"""Weights out of a run for other frameworks, and weights of other frameworks into a file for this one.

A format is one row: of `EXPORTS`, from a model to the bytes of a file; of `IMPORTS`, from a file to a layer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from .. import __version__, convert
from ..cells import GRU, LSTM, Elman
from ..convert.limits import check_regular
from ..errors import DataError, InputError, OptionError, RunError
from ..lang import Definition
from ..nn import Recurrent
from ..tasks.charlm.model import CharModel
from ..train import files
from ..train.run import Which
from .runs import load

_ARRAYS = (".npz", ".safetensors")
# What the commands say themselves, and no `--option` can.
_TAKEN = {"source", "params", "cell", "layers"}


@dataclass(frozen=True)
class _Names:
    """How a framework names the layers of a character model beside the recurrent ones; its dense kernel is [in, out]
    where `transposed`."""

    recurrent: Callable[[Recurrent], Mapping[str, Any]]
    kernel: str
    bias: str
    embedding: str
    transposed: bool = True

    def __call__(self, model: CharModel) -> bytes:
        """All weights of a model as an `.npz` file."""
        arrays = _flat(self.recurrent(model.recurrent))
        weight = model.output.weight.detach().cpu()
        arrays[self.kernel] = (weight.T if self.transposed else weight).contiguous().numpy()
        arrays[self.bias] = model.output.bias.detach().cpu().numpy()
        if model.embed is not None:
            arrays[self.embedding] = model.embed.weight.detach().cpu().numpy()
        return convert.npz(arrays)


def _torch(layer: Recurrent) -> dict[str, Any]:
    return {f"recurrent.{name}": array for name, array in convert.to_torch(layer).items()}


def _onnx(model: CharModel) -> bytes:
    """The whole model: symbols and states in, logits and states out."""
    data: bytes = model.to_onnx().SerializeToString()
    return data


EXPORTS: dict[str, Callable[[CharModel], bytes]] = {
    "torch": _Names(_torch, "output.weight", "output.bias", "embed.weight", transposed=False),
    "keras": _Names(convert.to_keras, "dense/kernel", "dense/bias", "embedding/embeddings"),
    "tf1": _Names(convert.to_tf1, "dense/kernel", "dense/bias", "embedding"),
    "flax": _Names(convert.to_flax, "Dense_0/kernel", "Dense_0/bias", "Embed_0/embedding"),
    "onnx": _onnx,
}


@dataclass(frozen=True)
class _Import:
    """`convert`: its function. `reads`: the files that it reads itself, such as "*.keras". `tells`: these tell which
    cell it is. `arrays`: files of arrays will do, too."""

    convert: Callable[..., Recurrent]
    reads: str = ""
    tells: bool = False
    arrays: bool = True


IMPORTS: dict[str, _Import] = {
    "torch": _Import(convert.from_torch),
    "keras": _Import(convert.from_keras, "*.keras", tells=True),
    "tf1": _Import(convert.from_tf1, "*"),
    "flax": _Import(convert.from_flax),
    "onnx": _Import(convert.layer_from_onnx, "*", tells=True, arrays=False),
}


def export(run: Path, format_: str, out: Path, which: Which) -> str:
    """Write the weights of a run for another framework; what was done, in words.

    OptionError: an unknown format, a run of another task than charlm, or a cell that the framework does not have.
    RunError: no sound run folder, or `out` is there already or cannot be written.
    """
    if format_ not in EXPORTS:
        raise OptionError(f"--format {format_}: expected one of {', '.join(EXPORTS)}")
    _check_free(out, ".onnx" if format_ == "onnx" else ".npz")
    loaded = load(run, which)
    if loaded.config.task != "charlm":
        raise OptionError(
            f"{run} is a run of {loaded.config.task}, expected one of charlm; its weights are in "
            f"{run / which}.safetensors, and cellwright.convert has a function for each layer"
        )
    data = EXPORTS[format_](loaded.net.model)
    files.write(out, data)
    return f"{out} has the {which} weights of {run} for {format_} ({len(data):,} bytes)"


def import_(
    source: Path, format_: str, out: Path, cell: str | None, layers: Sequence[str] | None, options: Mapping[str, Any]
) -> str:
    """Write the weights of another framework as safetensors with torch.nn's names; how to load them, in words.

    InputError: names every missing, extra and wrongly shaped array. DataError: a file that is damaged or too large.
    OptionError: an unknown format, cell or option. RunError: `out` is there already or cannot be written.
    """
    if format_ not in IMPORTS:
        raise OptionError(f"--format {format_}: expected one of {', '.join(IMPORTS)}")
    if taken := sorted(_TAKEN & options.keys()):
        raise OptionError(f"--option {taken[0]}: expected an option such as reset_after=false; see --cell and --layer")
    _check_free(out, ".safetensors")
    row = IMPORTS[format_]
    own = bool(row.reads) and fnmatch(source.name, row.reads) and not (row.arrays and source.suffix in _ARRAYS)
    arrays: Any = source if own else _arrays(source, row)
    if cell is None and not (own and row.tells):
        raise OptionError("--cell is missing: say which cell the weights are of, rnn, lstm or gru")
    # "forward,backward" are the two directions of one layer.
    named = [tuple(name.split(",")) if "," in name else name for name in layers or ()]
    try:
        layer = row.convert(arrays, cell, layers=named or None, **options)
    except (InputError, OptionError) as error:
        hint = " (here: --layer NAME for each layer, or --layer FORWARD,BACKWARD)" if "layers=[" in str(error) else ""
        raise type(error)(f"{source}: {error}{hint}") from None
    spelled = _spelled(layer)
    files.write(out, files.pack(layer.state_dict(), {"format": "pt", "cellwright": __version__, "layer": spelled}))
    count = sum(p.numel() for p in layer.parameters())
    return (
        f"{out} has {count:,} weights of {format_}; to use them:\n"
        f"  layer = cellwright.{spelled}\n"
        f'  layer.load_state_dict(safetensors.torch.load_file("{out}"))'
    )


def _arrays(path: Path, row: _Import) -> dict[str, Any]:
    """The arrays of an `.npz` or `.safetensors` file."""
    if path.suffix == ".npz":
        return dict(convert.read_npz(path))
    if path.suffix == ".safetensors":
        check_regular(path, "a file of safetensors")
        try:
            return dict(load_file(path))
        except (SafetensorError, OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read: {error}; expected a file of safetensors") from None
    endings = ", ".join((*_ARRAYS, row.reads.removeprefix("*"))).removesuffix(", ")
    raise DataError(f"{path} has the ending {path.suffix!r}, expected one of {endings}")


def _check_free(out: Path, ending: str) -> None:
    """RunError: there is something at `out`. OptionError: its name says that it is another kind of file."""
    if out.suffix != ending:
        raise OptionError(f"--out {out}: expected a name that ends with {ending}")
    if out.exists() or out.is_symlink():
        raise RunError(f"--out {out} exists; name another file")


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A tree by names joined with "/"."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= _flat(value, f"{prefix}{key}/") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _spelled(layer: Recurrent) -> str:
    """The call that makes such a layer, as text without the leading "cellwright."."""
    flags: dict[str, Any] = {name: True for name in ("batch_first", "bidirectional") if getattr(layer, name)}
    flags |= {"merge": layer.merge} if layer.merge != "concat" else {}
    if type(layer) is not Recurrent:
        flags = {"num_layers": layer.num_layers, **flags} if layer.num_layers > 1 else flags
        arguments = _arguments(layer.definitions[0], flags).replace("activation=", "nonlinearity=")
        return f"{type(layer).__name__}({arguments})"
    names = {"Elman": "RNNCell", "LSTM": "LSTMCell", "GRU": "GRUCell"}
    cells = ", ".join(f"cellwright.{names[d.name]}({_arguments(d, {})})" for d in layer.definitions)
    return f"Recurrent([{cells}]{''.join(f', {name}={value!r}' for name, value in flags.items())})"


def _arguments(definition: Definition, more: Mapping[str, Any]) -> str:
    """Sizes, bias, the options that are not at their defaults, and more."""
    usual = {"Elman": Elman, "LSTM": LSTM, "GRU": GRU}[definition.name].defaults()
    named = {name: value for name, value in definition.options.items() if value != usual[name]}
    if "bias_hh" not in definition.params:
        named["bias"] = "input" if "bias_ih" in definition.params else False
    sizes = f"{definition.input_size}, {definition.sizes['hidden_size']}"
    return sizes + "".join(f", {name}={value!r}" for name, value in {**named, **more}.items())
