"""Every convention against a loop written from the framework's documentation: runs without any framework."""

from typing import Any

import numpy as np
import pytest
import torch

from cellwright import GRU, LSTM, RNN, InputError, Recurrent, convert

from ...conftest import Assert
from .cases import CASES, Array, B, Case, H, I, T, flat, own_names, randomise

# The same sums in float64, in another order.
EXACT = 1e-12
BIDIRECTIONAL = {
    "keras": ("lstm/forward_lstm/", "lstm/backward_lstm/"),
    "tf1": ("bidirectional_rnn/fw/", "bidirectional_rnn/bw/"),
    "flax": ("forward_rnn/cell/", "backward_rnn/cell/"),
}
STACKED = {
    "keras": ("gru/", "gru_1/"),
    "tf1": ("multi_rnn_cell/cell_0/", "multi_rnn_cell/cell_1/"),
    "flax": ("layer_0/", "layer_1/"),
}

cases = pytest.mark.parametrize("case", CASES, ids=str)


def framework(case: Case) -> str:
    name = case.name.partition("-")[0]
    return "flax" if name == "nnx" else name


def inputs(features: int = I) -> Array:
    return np.random.default_rng(5).normal(size=(T, B, features))


def run(layer: Recurrent, x: Array) -> torch.Tensor:
    """The output of a layer, whose input is [B, T, I], as [T, B, O]."""
    assert layer.batch_first
    output, _ = layer(torch.from_numpy(x).transpose(0, 1))
    return output.transpose(0, 1).detach()


def prefixed(prefix: str, arrays: dict[str, Array]) -> dict[str, Array]:
    return {f"{prefix}{name}": value for name, value in arrays.items()}


@cases
@pytest.mark.parametrize("bias", [True, "input"])
def test_an_imported_layer_computes_what_the_framework_does(case: Case, bias: Any, assert_close: Assert) -> None:
    arrays, x = case.arrays(), inputs()
    if bias == "input":  # where there is a bias beside the state, it must be zero
        arrays = {n: np.zeros_like(v) if n == "hn/bias" else v for n, v in arrays.items()}
        arrays |= {"bias": arrays["bias"] * [[1], [0]]} if arrays.get("bias", x).ndim == 2 else {}
    layer = case.load(arrays, case.cell, bias=bias, **case.options)
    assert layer.bias == bias
    assert_close(case.name, run(layer, x), torch.from_numpy(case.loop(x, arrays)), EXACT)


@cases
def test_an_exported_layer_computes_the_same_there(case: Case, assert_close: Assert) -> None:
    layer, x = randomise(case.layer(I, H, batch_first=True, dtype=torch.float64)), inputs()
    arrays = own_names(flat(case.save(layer)), case.shapes(I, H))
    assert {name: value.shape for name, value in arrays.items()} == case.shapes(I, H)
    assert_close(case.name, torch.from_numpy(case.loop(x, arrays)), run(layer, x), EXACT)


@cases
def test_import_and_export_give_the_arrays_back(case: Case) -> None:
    arrays = case.arrays(dtype="float32")
    back = own_names(flat(case.save(case.load(arrays, case.cell, **case.options))), arrays)
    assert back.keys() == arrays.keys()
    for name, value in arrays.items():
        assert back[name].dtype == np.float32
        if name == "bias" and case.loop.__name__ == "tf1_lstm":
            # One is added to the bias of the forget gate, and subtracted: half a unit in the last place of 1.8, twice.
            np.testing.assert_allclose(back[name][2 * H : 3 * H], value[2 * H : 3 * H], rtol=0, atol=2**-23)
            back[name][2 * H : 3 * H] = value[2 * H : 3 * H]
        np.testing.assert_array_equal(back[name], value, err_msg=name, strict=True)


@cases
def test_export_and_import_give_the_layer_back(case: Case, assert_close: Assert) -> None:
    """Also where two biases have become one."""
    layer, x = randomise(case.layer(I, H, 2, batch_first=True, bidirectional=True, dtype=torch.float64)), inputs()
    back = case.load(case.save(layer), case.cell, **case.options)
    assert type(back) is type(layer)
    assert (back.num_layers, back.bidirectional) == (2, True)
    assert [d.options for d in back.definitions] == [d.options for d in layer.definitions]
    assert_close(case.name, run(back, x), run(layer, x), EXACT)


@cases
def test_two_directions(case: Case, assert_close: Assert) -> None:
    forward, backward, x = case.arrays(), case.arrays(), inputs()
    backward = {name: -value for name, value in backward.items()}
    first, second = BIDIRECTIONAL[framework(case)]
    # The order of the names does not matter.
    layer = case.load({**prefixed(second, backward), **prefixed(first, forward)}, case.cell, **case.options)
    want = np.concatenate([case.loop(x, forward), case.loop(x[::-1], backward)[::-1]], -1)
    assert_close(case.name, run(layer, x), torch.from_numpy(want), EXACT)


@cases
@pytest.mark.parametrize("second", [H, H + 2])
def test_two_layers_of_equal_and_of_different_sizes(case: Case, second: int, assert_close: Assert) -> None:
    low, x = case.arrays(), inputs()
    middle = case.loop(x, low)
    high = case.arrays(middle.shape[-1], second)
    first, other = STACKED[framework(case)]
    layer = case.load({**prefixed(other, high), **prefixed(first, low)}, case.cell, **case.options)
    assert type(layer) is (Recurrent if second != H else type(case.layer(I, H)))
    assert_close(case.name, run(layer, x), torch.from_numpy(case.loop(middle, high)), EXACT)


def test_more_than_ten_layers_are_in_the_order_of_their_numbers(assert_close: Assert) -> None:
    case = next(c for c in CASES if c.name == "tf1-rnn")
    layers = [case.arrays(H, H) for _ in range(11)]
    for k, arrays in enumerate(layers):
        arrays["bias"] += k / 11
    everything: dict[str, Array] = {}
    for k in sorted(range(11), key=str):
        everything |= prefixed(f"rnn/multi_rnn_cell/cell_{k}/basic_rnn_cell/", layers[k])
    want = x = inputs(H)
    for arrays in layers:
        want = case.loop(want, arrays)
    assert_close("11 layers", run(convert.from_tf1(everything, "rnn"), x), torch.from_numpy(want), EXACT)


@pytest.mark.parametrize("name", ["keras-rnn", "keras-lstm", "keras-gru"])
def test_keras_without_bias(name: str, assert_close: Assert) -> None:
    case, x = next(c for c in CASES if c.name == name), inputs()
    arrays = case.arrays()
    del arrays["bias"]
    with pytest.raises(InputError, match="bias is missing"):
        convert.from_keras(arrays, case.cell)
    layer = convert.from_keras(arrays, case.cell, bias=False)
    assert layer.bias is False
    with pytest.raises(InputError, match="bias is extra for bias=False"):
        convert.from_keras(case.arrays(), case.cell, bias=False)
    assert_close(name, run(layer, x), torch.from_numpy(case.loop(x, arrays)), EXACT)
    assert own_names(convert.to_keras(layer), case.shapes(I, H)).keys() == arrays.keys()


@pytest.mark.parametrize("forget_bias", [0.0, 1.0, -0.3])
def test_the_forget_bias_of_tf1(forget_bias: float, assert_close: Assert) -> None:
    case, x = next(c for c in CASES if c.name == "tf1-lstm"), inputs()
    arrays = case.arrays()
    want = torch.from_numpy(case.loop(x, arrays, forget_bias=forget_bias))
    layer = convert.from_tf1(arrays, "lstm", forget_bias=forget_bias)
    assert_close("import", run(layer, x), want, EXACT)
    back = own_names(convert.to_tf1(layer, forget_bias=forget_bias), arrays)
    assert_close("export", torch.from_numpy(case.loop(x, back, forget_bias=forget_bias)), want, EXACT)


def test_a_layer_without_bias_gets_the_zeros_that_tf1_needs(assert_close: Assert) -> None:
    layer, x = randomise(LSTM(I, H, bias=False, batch_first=True, dtype=torch.float64)), inputs()
    arrays = own_names(convert.to_tf1(layer), ("kernel", "bias"))
    assert_close("lstm", torch.from_numpy(CASES[5].loop(x, arrays)), run(layer, x), EXACT)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("kind", [torch.nn.RNN, torch.nn.LSTM, torch.nn.GRU])
@pytest.mark.parametrize("bias", [True, False])
def test_torch(kind: Any, bias: bool) -> None:
    more = {"proj_size": 4} if kind is torch.nn.LSTM else {"nonlinearity": "relu"} if kind is torch.nn.RNN else {}
    theirs = kind(I, H, 2, bias=bias, bidirectional=True, dropout=0.1, batch_first=True, **more)
    x = torch.randn(B, T, I)
    layer = convert.from_torch(theirs)
    assert (layer.dropout, layer.batch_first, layer.bias) == (0.1, True, bias)
    state, back = theirs.state_dict(), convert.to_torch(layer)
    assert list(back) == list(state)
    for name, value in state.items():
        np.testing.assert_array_equal(back[name], value.numpy(), strict=True)
    layer.eval()
    theirs.eval()
    torch.testing.assert_close(layer(x)[0], theirs(x)[0], rtol=0, atol=1e-5)
    encoder = {f"encoder.{name}": value for name, value in state.items()} | {"output.weight": torch.zeros(2, 2)}
    cell, options = kind.__name__.lower(), {"activation": "relu"} if kind is torch.nn.RNN else {}
    again = convert.from_torch(encoder, cell, layers=["encoder"], bias=bias, **options)
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())


def test_bfloat16_is_exact_as_float32() -> None:
    layer = LSTM(I, H, dtype=torch.bfloat16)
    back = convert.from_torch(convert.to_torch(layer), "lstm")
    for name, value in layer.state_dict().items():
        assert torch.equal(back.state_dict()[name], value.float())


def test_a_conversion_draws_no_random_numbers_and_shares_no_memory() -> None:
    arrays = next(c for c in CASES if c.name == "keras-lstm").arrays()
    before = torch.get_rng_state()
    layer = convert.from_keras(arrays, "lstm")
    assert torch.equal(torch.get_rng_state(), before)
    kept = {name: value.clone() for name, value in layer.state_dict().items()}
    out = convert.to_keras(layer)
    for value in (*arrays.values(), *out.values()):
        value[:] = 7.0
    assert all(torch.equal(kept[name], value) for name, value in layer.state_dict().items())


def test_a_negative_zero_stays_one() -> None:
    arrays = {name: np.full_like(value, -0.0) for name, value in CASES[1].arrays().items()}
    for value in convert.to_keras(convert.from_keras(arrays, "lstm")).values():
        assert np.signbit(value).all()


def test_cells_and_lists_of_cells_are_exported_too() -> None:
    from cellwright import GRUCell, LSTMCell

    cell = LSTMCell(I, H)
    assert list(convert.to_torch(cell)) == [f"{name}_l0" for name, _ in cell.named_parameters()]
    mixed = Recurrent([LSTMCell(I, H), GRUCell(H, 4)])
    assert {name.split("/")[0] for name in convert.to_keras(mixed)} == {"lstm", "gru_1"}
    assert convert.to_keras(RNN(I, H, nonlinearity="relu")).keys() == convert.to_keras(RNN(I, H)).keys()
    assert isinstance(convert.from_keras(convert.to_keras(GRU(I, H)), "gru"), GRU)
