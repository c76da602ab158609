"""`cellwright export` and `import`: weights out of a run, and into a file."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import cellwright
from cellwright import GRU, LSTM, RNN, Recurrent, convert
from cellwright.app.exchange import EXPORTS, IMPORTS
from cellwright.app.runs import load

from .conftest import SMALL, Result, refused

Cli = Callable[..., Result]

# The names of the dense output and of the embedding; the dense kernel is [in, out] but in torch.
OUTPUT = {
    "torch": ("output.weight", "output.bias", "embed.weight"),
    "keras": ("dense/kernel", "dense/bias", "embedding/embeddings"),
    "tf1": ("dense/kernel", "dense/bias", "embedding"),
    "flax": ("Dense_0/kernel", "Dense_0/bias", "Embed_0/embedding"),
}
LAYERS = {
    "torch": ["recurrent"],
    "keras": ["lstm", "lstm_1"],
    "tf1": ["rnn"],
    "flax": ["layer_0", "layer_1"],
}


def rebuilt(result: Result) -> Recurrent:
    """The layer that the command's own words make."""
    code = result.out.split("to use them:\n")[1].replace("\n  ", "\n").strip()
    import safetensors.torch

    names: dict[str, Any] = {"cellwright": cellwright, "safetensors": safetensors}
    exec(code, names)
    layer = names["layer"]
    assert isinstance(layer, Recurrent)
    return layer


def test_every_format_has_its_rows() -> None:
    assert {*OUTPUT, "onnx"} == set(EXPORTS) == set(IMPORTS)  # tests/convert has those of ONNX


@pytest.mark.parametrize("format_", OUTPUT)
@pytest.mark.parametrize("last", [False, True])
def test_a_run_goes_out_and_its_layers_come_back(cli: Cli, char_run: Path, format_: str, last: bool) -> None:
    out, back = char_run / "weights.npz", char_run / "back.safetensors"
    result = cli("export", char_run, "--format", format_, "--out", out, *(["--last"] if last else []))
    assert result.code == 0, result.err
    assert f"{out} has the {'last' if last else 'best'} weights of {char_run} for {format_}" in result.out
    model = load(char_run, "last" if last else "best").net.model
    with np.load(out, allow_pickle=False) as arrays:
        kernel, bias, _ = OUTPUT[format_]
        weight = arrays[kernel] if format_ == "torch" else arrays[kernel].T
        np.testing.assert_array_equal(weight, model.output.weight.detach().numpy())
        np.testing.assert_array_equal(arrays[bias], model.output.bias.detach().numpy())
        assert sum(array.size for array in arrays.values()) <= sum(p.numel() for p in model.parameters())
    layers = [word for name in LAYERS[format_] for word in ("--layer", name)]
    result = cli("import", out, "--format", format_, "--cell", "lstm", *layers, "--out", back)
    assert result.code == 0, result.err
    layer = rebuilt(result)
    assert isinstance(layer, LSTM)
    x = torch.randint(0, layer.input_size, (2, 7))
    want = model.recurrent(x.T)[0].transpose(0, 1) if layer.batch_first else model.recurrent(x)[0]
    # Two biases may have become one, and TF1's forget bias is added and subtracted.
    torch.testing.assert_close(layer(x)[0], want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("format_", OUTPUT)
def test_an_embedding_goes_out_too(cli: Cli, byte_run: Path, tmp_path: Path, format_: str) -> None:
    assert cli("export", byte_run, "--format", format_, "--out", tmp_path / "w.npz").code == 0
    model = load(byte_run).net.model
    assert model.embed is not None
    with np.load(tmp_path / "w.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays[OUTPUT[format_][2]], model.embed.weight.detach().numpy())


def test_the_torch_export_is_the_state_dict(cli: Cli, byte_run: Path, tmp_path: Path) -> None:
    assert cli("export", byte_run, "--format", "torch", "--out", tmp_path / "w.npz").code == 0
    state = load(byte_run).net.model.state_dict()
    arrays = convert.read_npz(tmp_path / "w.npz")
    assert arrays.keys() == state.keys()
    for name, value in state.items():
        np.testing.assert_array_equal(arrays[name], value.numpy(), strict=True)


LAYERS_OUT: list[tuple[str, Recurrent, tuple[str, ...]]] = [
    ("keras", GRU(3, 5, 2, bidirectional=True, batch_first=True), ()),
    ("keras", GRU(3, 5, reset_after=False, batch_first=True), ("--option", "reset_after=false")),
    (
        "keras",
        RNN(3, 5, nonlinearity="relu", bias=False, batch_first=True),
        ("--option", "activation=relu", "--option", "bias=false"),
    ),
    ("tf1", LSTM(3, 5, peephole=True, proj_size=2, bias="input", batch_first=True), ("--option", "bias=input")),
    ("flax", GRU(3, 5, batch_first=True), ()),
    ("flax", RNN(3, 5), ("--option", "batch_first=false")),
]


@pytest.mark.parametrize(("format_", "layer", "options"), LAYERS_OUT)
def test_the_words_of_an_import_make_the_layer(
    cli: Cli, tmp_path: Path, format_: str, layer: Recurrent, options: tuple[str, ...]
) -> None:
    arrays: dict[str, Any] = getattr(convert, f"to_{format_}")(layer)
    if format_ == "flax":
        arrays = {f"{a}/{b}": value for a, inner in arrays.items() for b, value in inner.items()}
    source = tmp_path / "in.safetensors"
    save_file({name: torch.from_numpy(value) for name, value in arrays.items()}, source)
    cell = {"RNN": "rnn", "LSTM": "lstm", "GRU": "gru"}[type(layer).__name__]
    result = cli("import", source, "--format", format_, "--cell", cell, "--out", tmp_path / "out.safetensors", *options)
    assert result.code == 0, result.err
    back = rebuilt(result)
    assert repr(back) == repr(layer)
    assert list(load_file(tmp_path / "out.safetensors").keys() ^ layer.state_dict().keys()) == []


def test_layers_of_different_sizes_and_directions_by_name(cli: Cli, tmp_path: Path) -> None:
    low, high = GRU(3, 5), GRU(5, 4)
    arrays = {f"encoder/a/{n.split('/')[-1]}": v for n, v in convert.to_keras(low).items()}
    arrays |= {f"encoder/b/{n.split('/')[-1]}": v for n, v in convert.to_keras(high).items()}
    (tmp_path / "w.npz").write_bytes(convert.npz(arrays))
    command = ("import", tmp_path / "w.npz", "--format", "keras", "--cell", "gru", "--out", tmp_path / "o.safetensors")
    refused(cli(*command), "does not tell their order", "--layer")
    result = cli(*command, "--layer", "encoder/a", "--layer", "encoder/b")
    assert result.code == 0, result.err
    assert "Recurrent([cellwright.GRUCell(3, 5), cellwright.GRUCell(5, 4)], batch_first=True)" in result.out
    assert rebuilt(result).num_layers == 2
    (tmp_path / "w.npz").write_bytes(
        convert.npz({f"{k}/{n.split('/')[-1]}": v for n, v in convert.to_keras(low).items() for k in "xy"})
    )
    (tmp_path / "o.safetensors").unlink()
    assert "bidirectional=True" in cli(*command, "--layer", "x,y").out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--format", "caffe", "--cell", "lstm"], ("--format caffe", "torch, keras, tf1, flax")),
        (["--format", "keras"], ("--cell is missing", "rnn, lstm or gru")),
        (["--format", "keras", "--cell", "lstn"], ("cell='lstn'", "lstm, LSTM")),
        (["--format", "keras", "--cell", "lstm", "--option", "size=3"], ("unknown option size=3",)),
        (["--format", "keras", "--cell", "lstm", "--option", "source=3"], ("--option source",)),
        (["--format", "keras", "--cell", "lstm", "--layer", "x"], ("layers=['x']", "--layer NAME")),
        (["--format", "keras", "--cell", "lstm"], ("surplus is extra", "lstm/lstm_cell/bias is missing")),
        (["--format", "tf1", "--cell", "lstm"], ("surplus",)),
    ],
)
def test_imports_that_are_refused(cli: Cli, tmp_path: Path, arguments: list[str], words: tuple[str, ...]) -> None:
    arrays = convert.to_keras(LSTM(3, 5)) | {"surplus": np.zeros(3)}
    del arrays["lstm/lstm_cell/bias"]
    arrays["lstm/lstm_cell/kernel"] = arrays["lstm/lstm_cell/kernel"][:, 1:]
    (tmp_path / "w.npz").write_bytes(convert.npz(arrays))
    out = tmp_path / "out.safetensors"
    refused(cli("import", tmp_path / "w.npz", *arguments, "--out", out), *words)
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("absent.npz", None, ("does not exist", "name an .npz file")),
        ("a.npz", b"PK\x03\x04 and so on", ("cannot be read", "not a zip file")),
        ("a.safetensors", b"12345678", ("cannot be read", "safetensors")),
        ("absent.safetensors", None, ("cannot be read",)),
        ("a.pt", b"", ("the ending '.pt'", ".npz, .safetensors, .keras")),
        ("a", b"", ("the ending ''",)),
        ("a.keras", b"", ("cannot be read", ".keras file")),
    ],
)
def test_files_that_are_refused(
    cli: Cli, tmp_path: Path, name: str, data: bytes | None, words: tuple[str, ...]
) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    command = ("import", tmp_path / name, "--format", "keras", "--cell", "lstm", "--out", tmp_path / "o.safetensors")
    refused(cli(*command), *words)


def test_a_file_of_pickles_is_refused(cli: Cli, tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", kernel=np.array([{}], dtype=object))
    command = ("import", tmp_path / "w.npz", "--format", "tf1", "--cell", "gru", "--out", tmp_path / "o.safetensors")
    refused(cli(*command), "'kernel'", "holds object")


def test_a_zip_bomb_is_refused(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(1000))
    data = bytearray(path.read_bytes())
    place = data.rfind(b"PK\x01\x02")
    data[place + 24 : place + 28] = (2**32 - 2).to_bytes(4, "little")
    path.write_bytes(data)
    command = ("import", path, "--format", "torch", "--cell", "gru", "--out", tmp_path / "o.safetensors")
    refused(cli(*command), "4,294,967,294 bytes, expected 2,147,483,648 at most")


def test_exports_that_are_refused(cli: Cli, char_run: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "w.npz"
    refused(cli("export", char_run, "--format", "caffe", "--out", out), "--format caffe: expected one of torch, keras")
    refused(cli("export", tmp_path / "no", "--format", "keras", "--out", out), "is not a run folder")
    refused(cli("export", char_run, "--format", "keras", "--out", tmp_path / "no" / "w.npz"), "cannot be written")
    other = tmp_path / "w.txt"
    refused(cli("export", char_run, "--format", "keras", "--out", other), "expected a name that ends with .npz")
    refused(cli("export", char_run, "--format", "onnx", "--out", out), "expected a name that ends with .onnx")
    refused(cli("import", other, "--format", "tf1", "--out", other), "expected a name that ends with .safetensors")
    out.write_text("mine")
    refused(cli("export", char_run, "--format", "keras", "--out", out), f"--out {out} exists; name another file")
    assert out.read_text() == "mine"
    out.unlink()
    run = tmp_path / "peephole"
    assert cli("train", "charlm", text, "--out", run, *SMALL, "--option", "peephole=true", "--steps", 1).code == 0
    refused(cli("export", run, "--format", "keras", "--out", out), "Keras cannot hold this layer", "peephole=True")
    assert cli("export", run, "--format", "tf1", "--out", out).code == 0
