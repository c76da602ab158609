"""Every cell against its formulas, written out with torch's own functions on its own weights."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cellwright import Cell, OptionError, nn
from cellwright.cells import CELLS

F64 = torch.float64
s, tanh = torch.sigmoid, torch.tanh
States = tuple[Tensor, ...]


class Weights:
    """The weights of a cell by name; a product is W v + b, its result cut into the slices; an absent bias is 0."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.p = dict(cell.named_parameters())

    def __getitem__(self, name: str) -> Tensor:
        return self.p[name]

    def product(self, matrix: str, v: Tensor, parts: int = 1) -> Any:
        a = v @ self.p[f"weight_{matrix}"].t() + self.p.get(f"bias_{matrix}", 0.0)
        return a.chunk(parts, -1) if parts > 1 else a

    def sums(self, x: Tensor, h: Tensor, parts: int) -> list[Tensor]:
        both = zip(self.product("ih", x, parts), self.product("hh", h, parts), strict=True)
        return [a + b for a, b in both]

    def norm(self, name: str, v: Tensor) -> Tensor:
        return F.layer_norm(v, v.shape[-1:], self.p[f"{name}_gain"], self.p[f"{name}_shift"])


def lstm_of(sums: Any, c: Tensor) -> States:
    i, f, g, o = sums
    c = s(f) * c + s(i) * tanh(g)
    return s(o) * tanh(c), c


def lstm(w: Weights, x: Tensor, h: Tensor, c: Tensor) -> States:
    cell: Any = w.cell
    if not cell.layer_norm:
        i, f, g, o = w.sums(x, h, 4)
        c = (s(f) * c + s(i) * tanh(g)).clamp(-cell.cell_clip, cell.cell_clip)
        return s(o) * tanh(c), c
    a = w.norm("norm_ih", w.product("ih", x)) + w.norm("norm_hh", w.product("hh", h))
    i, f, g, o = a.chunk(4, -1)
    c = s(f) * c + s(i) * tanh(g)
    return s(o) * tanh(w.norm("norm_c", c)), c


def gru(w: Weights, x: Tensor, h: Tensor) -> States:
    """As in the supplement of Ba et al. 2016, with z the share of the past."""
    n = w.cell.hidden_size
    wx = x @ w["weight_ih"].t()
    rz = w.norm("norm_ih", wx[:, : 2 * n]) + w.norm("norm_hh", h @ w["weight_hh"][: 2 * n].t())
    r, z = s(rz).chunk(2, -1)
    if w.cell.reset_after:
        past = r * w.norm("norm_hh_n", h @ w["weight_hh"][2 * n :].t())
    else:
        past = w.norm("norm_hh_n", (r * h) @ w["weight_hh"][2 * n :].t())
    new = tanh(w.norm("norm_ih_n", wx[:, 2 * n :]) + past)
    return ((1 - z) * new + z * h,)


def greff(w: Weights, x: Tensor, h: Tensor, c: Tensor, *before: Tensor) -> States:
    cell: Any = w.cell
    absent = {n for n, there in (("i", cell.input_gate), ("f", cell.forget_gate), ("o", cell.output_gate)) if not there}
    names, gates = ([n for n in every if n not in absent] for every in ("ifgo", "ifo"))
    a = dict(zip(names, (w.product("ih", x) + w.product("hh", h)).chunk(len(names), -1), strict=True))
    for source, value in zip(gates, before, strict=False):
        more = (value @ w[f"weight_from_{source}"].t()).chunk(len(gates), -1)
        a |= {name: a[name] + m for name, m in zip(gates, more, strict=True)}
    peep = {n: w[f"p_{n}"] if cell.peephole else 0.0 for n in gates}
    i = s(a["i"] + peep["i"] * c) if cell.input_gate else 1.0
    f = s(a["f"] + peep["f"] * c) if cell.forget_gate else 1.0
    c = f * c + i * (tanh(a["g"]) if cell.input_activation else a["g"])
    o = s(a["o"] + peep["o"] * c) if cell.output_gate else 1.0
    h = o * (tanh(c) if cell.output_activation else c)
    every = {"i": i, "f": f, "o": o}
    return (h, c, *(every[n] for n in gates)) if cell.full_gate_recurrence else (h, c)


def jordan(w: Weights, x: Tensor, y: Tensor, memory: Tensor | None = None) -> States:
    h = tanh(w.product("ih", x) + w.product("hh", y if memory is None else memory))
    y = tanh(w.product("ho", h))
    return (y,) if memory is None else (y, 0.5 * memory + y)


def mgu(w: Weights, x: Tensor, h: Tensor) -> States:
    n = w.cell.hidden_size
    wx, (r_f, r_n), (b_f, b_n) = w.product("ih", x, 2), w["weight_hh"].split(n), w["bias_hh"].split(n)
    f = s(wx[0] + h @ r_f.t() + b_f)
    return ((1 - f) * h + f * tanh(wx[1] + (f * h) @ r_n.t() + b_n),)


def ugrnn(w: Weights, x: Tensor, h: Tensor) -> States:
    n, g = w.sums(x, h, 2)
    return (s(g) * h + (1 - s(g)) * tanh(n),)


def indrnn(w: Weights, x: Tensor, h: Tensor) -> States:
    return (F.relu(w.product("ih", x) + w["u"] * h),)


def ligru(w: Weights, x: Tensor, h: Tensor) -> States:
    a = w.norm("norm_ih", w.product("ih", x)) if w.cell.layer_norm else w.product("ih", x)
    z, n = (a + w.product("hh", h)).chunk(2, -1)
    return (s(z) * h + (1 - s(z)) * F.relu(n),)


def janet(w: Weights, x: Tensor, h: Tensor) -> States:
    f, g = w.sums(x, h, 2)
    return (s(f) * h + (1 - s(f - 1.0)) * tanh(g),)


def rhn(w: Weights, x: Tensor, h: Tensor) -> States:
    parts = 2 if w.cell.coupled else 3
    for layer in range(w.cell.depth):
        a = w.sums(x, h, parts) if layer == 0 else w.product(f"hh_{layer + 1}", h, parts)
        t = s(a[1])
        h = tanh(a[0]) * t + h * (s(a[2]) if parts == 3 else 1 - t)
    return (h,)


def multiplicative(w: Weights, x: Tensor, h: Tensor, c: Tensor) -> States:
    m = (x @ w["weight_mx"].t()) * (h @ w["weight_mh"].t())
    return lstm_of(w.sums(x, m, 4), c)


def mogrifier(w: Weights, x: Tensor, h: Tensor, c: Tensor) -> States:
    for k in range(1, w.cell.rounds + 1):
        if k % 2:
            x = 2 * s(h @ w[f"weight_q{k}"].t()) * x
        else:
            h = 2 * s(x @ w[f"weight_q{k}"].t()) * h
    return lstm_of(w.sums(x, h, 4), c)


def sru(w: Weights, x: Tensor, h: Tensor, c: Tensor) -> States:
    n = w.cell.hidden_size
    z, f, r, *p = (x @ w["weight_ih"].t()).split(n, -1)
    b_f, b_r = w["bias_ih"].split(n)
    f, r = s(f + w["v_f"] * c + b_f), s(r + w["v_r"] * c + b_r)
    c = f * c + (1 - f) * z
    return r * c + (1 - r) * (p[0] if p else x), c


def mingru(w: Weights, x: Tensor, h: Tensor) -> States:
    z, n = w.product("ih", x, 2)
    n = torch.where(n >= 0, n + 0.5, s(n)) if w.cell.positive else n
    return ((1 - s(z)) * h + s(z) * n,)


def minlstm(w: Weights, x: Tensor, h: Tensor) -> States:
    f, i, n = w.product("ih", x, 3)
    f, i = s(f), s(i)
    n = torch.where(n >= 0, n + 0.5, s(n)) if w.cell.positive else n
    return (f / (f + i) * h + i / (f + i) * n,)


HANDS: dict[str, list[tuple[dict[str, Any], Callable[..., States]]]] = {
    "RNNCell": [({}, lambda w, x, h: (tanh(w.product("ih", x) + w.product("hh", h)),))],
    "JordanCell": [(o, jordan) for o in ({}, {"decay": 0.5}, {"output_size": 2})],
    "LSTMCell": [({"cell_clip": 0.3}, lstm), ({"layer_norm": True}, lstm)],
    "GreffLSTMCell": [
        ({}, greff),
        *(({part: False}, greff) for part in ("input_gate", "forget_gate", "output_gate")),
        *(({part: False}, greff) for part in ("input_activation", "output_activation", "peephole")),
        ({"full_gate_recurrence": True}, greff),
        ({"full_gate_recurrence": True, "input_gate": False, "output_gate": False}, greff),
        ({"input_gate": False, "forget_gate": False, "output_gate": False}, greff),
    ],
    "MultiplicativeLSTMCell": [({}, multiplicative)],
    "MogrifierLSTMCell": [({"rounds": n}, mogrifier) for n in (0, 1, 4, 5)],
    "GRUCell": [({"layer_norm": True, "reset_after": after}, gru) for after in (True, False)],
    "MGUCell": [({}, mgu)],
    "UGRNNCell": [({}, ugrnn)],
    "LiGRUCell": [({}, ligru), ({"layer_norm": True}, ligru)],
    "JANETCell": [({}, janet)],
    "RHNCell": [(o, rhn) for o in ({}, {"depth": 1}, {"coupled": False, "depth": 2})],
    "IndRNNCell": [({}, indrnn)],
    "SRUCell": [({}, sru)],
    "MinGRUCell": [({}, mingru), ({"positive": True}, mingru)],
    "MinLSTMCell": [({}, minlstm), ({"positive": True}, minlstm)],
}
CASES = [(name, *case) for name, cases in HANDS.items() for case in cases]
IDS = [" ".join([name, *(f"{k}={v}" for k, v in options.items())]) for name, options, _ in CASES]


@pytest.mark.parametrize(("name", "options", "hand"), CASES, ids=IDS)
@pytest.mark.parametrize("sizes", [(3, 4), (5, 5)])
def test_formulas(name: str, options: dict[str, Any], hand: Callable[..., States], sizes: tuple[int, int]) -> None:
    """Three steps, from any state; an error of 1e-13 is some roundings of float64."""
    cell = nn.CELLS[name](*sizes, dtype=F64, **options)
    for gain in (p for n, p in cell.named_parameters() if n.endswith(("_gain", "_shift"))):
        gain.data.normal_()
    units = [cell.definition().state_size(n) for n in cell.definition().states]
    state = tuple(torch.randn(2, n, dtype=F64) for n in units)
    wanted, given = state, state
    for _ in range(3):
        x = torch.randn(2, sizes[0], dtype=F64)
        output, after = cell(x, given if len(given) > 1 else given[0])
        given = after if isinstance(after, tuple) else (after,)
        wanted = hand(Weights(cell), x, *wanted)
        assert torch.equal(output, given[0])
        for got, want in zip(given, wanted, strict=True):
            assert (got - want).abs().max() < 1e-13


def test_every_cell_is_written_out() -> None:
    elsewhere = {"QRNNCell", "SLSTMCell"}  # below
    assert set(HANDS) | elsewhere == set(nn.CELLS)
    assert len(nn.CELLS) == len(CELLS)


@pytest.mark.parametrize("window", [1, 2, 4])
@pytest.mark.parametrize("pooling", ["f", "fo", "ifo"])
def test_qrnn_is_a_convolution_and_a_pooling(pooling: str, window: int) -> None:
    """torch's conv1d over inputs that are padded at the left, then the paper's pooling, step by step."""
    gates = {"f": "zf", "fo": "zfo", "ifo": "zfoi"}[pooling]
    layer = nn.Recurrent(nn.CELLS["QRNNCell"], 3, 5, pooling=pooling, window=window, dtype=F64)
    x = torch.randn(7, 2, 3, dtype=F64)
    w = dict(layer.named_parameters())
    taps = [w[f"weight_back_{k}_l0"] for k in range(window - 1, 0, -1)] + [w["weight_ih_l0"]]
    a = F.conv1d(F.pad(x.permute(1, 2, 0), (window - 1, 0)), torch.stack(taps, -1), w["bias_ih_l0"]).permute(2, 0, 1)
    gate = dict(zip(gates, a.chunk(len(gates), -1), strict=True))
    c, outputs = torch.zeros(2, 5, dtype=F64), []
    for t in range(7):
        f, z = s(gate["f"][t]), tanh(gate["z"][t])
        c = f * c + (s(gate["i"][t]) if pooling == "ifo" else 1 - f) * z
        outputs.append(c if pooling == "f" else s(gate["o"][t]) * c)
    assert (layer(x)[0] - torch.stack(outputs)).abs().max() < 1e-14
    halves = [layer(x[:3]), ()]
    halves[1] = layer(x[3:], halves[0][1])  # the state carries what the window needs
    assert (torch.cat([halves[0][0], halves[1][0]]) - torch.stack(outputs)).abs().max() < 1e-14


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("exp_forget", [False, True])
def test_slstm_without_its_stabiliser(heads: int, exp_forget: bool) -> None:
    """From zero states, h is that of c and n with plain exponentials (Beck et al. 2024)."""
    layer = nn.Recurrent(nn.CELLS["SLSTMCell"], 3, 6, heads=heads, exp_forget=exp_forget, dtype=F64)
    x = torch.randn(9, 2, 3, dtype=F64)
    R = layer.weight_hh_l0.view(4, heads, 6 // heads, 6 // heads)  # gate, head, unit, unit of the same head
    h = c = n = torch.zeros(2, 6, dtype=F64)
    outputs = []
    for value in x:
        past = torch.einsum("gkab,Bkb->Bgka", R, h.view(2, heads, -1)).reshape(2, 24) + layer.bias_hh_l0
        i, f, z, o = (value @ layer.weight_ih_l0.t() + layer.bias_ih_l0 + past).chunk(4, -1)
        i, f = i.exp(), f.exp() if exp_forget else s(f)
        c, n = f * c + i * tanh(z), f * n + i
        h = s(o) * c / n
        outputs.append(h)
    assert (layer(x)[0] - torch.stack(outputs)).abs().max() < 1e-13


def test_slstm_where_plain_exponentials_overflow() -> None:
    """Gates of +-2000: also after a reset, values and gradients are finite, on both targets alike."""
    layer = nn.Recurrent(nn.CELLS["SLSTMCell"], 2, 4, heads=2)
    x = torch.randn(6, 3, 2) * 2000
    reset = torch.zeros(6, 3, dtype=torch.bool)
    reset[3, 1] = True
    found = []
    for target in ("cpu", "torch"):
        with nn.use_target(target):
            output, _ = layer(x, reset=reset)
            gradients = torch.autograd.grad(output.square().sum(), list(layer.parameters()))
            assert all(v.isfinite().all() for v in (output, *gradients))
            found.append(output)
    assert output.abs().max() <= 1
    assert (found[0] - found[1]).abs().max() < 1e-3  # the sums before the gates have spacings of 1e-4


def test_minlstm_where_both_gates_are_almost_zero() -> None:
    cell = nn.CELLS["MinLSTMCell"](1, 1)
    cell.weight_ih.data = torch.tensor([[-300.0], [-301.0], [0.5]])
    cell.bias_ih.data.zero_()
    h, _ = cell(torch.ones(1), torch.zeros(1))
    assert h.item() == pytest.approx(0.5 / (1 + torch.e), rel=1e-5)


def test_relations_between_cells() -> None:
    """What the docstrings say of one cell as a case of another."""
    x = torch.randn(5, 2, 3, dtype=F64)

    def layer(name: str, seed: int = 3, **options: Any) -> Any:
        torch.manual_seed(seed)
        return nn.Recurrent(nn.CELLS[name], 3, 4, dtype=F64, **options)

    lstm, greff = layer("LSTMCell", peephole=True), layer("GreffLSTMCell")
    greff.load_state_dict(lstm.state_dict())
    assert torch.equal(lstm(x)[0], greff(x)[0])
    lstm, mogrifier = layer("LSTMCell"), layer("MogrifierLSTMCell", rounds=0)
    mogrifier.load_state_dict(lstm.state_dict())
    assert torch.equal(lstm(x)[0], mogrifier(x)[0])
    janet, ugrnn = layer("JANETCell", beta=0.0), layer("UGRNNCell")
    for name, p in janet.named_parameters():
        ugrnn.get_parameter(name).data = torch.cat([*reversed(p.data.chunk(2))])
    assert (janet(x)[0] - ugrnn(x)[0]).abs().max() < 1e-15
    whole, heads = layer("SLSTMCell"), layer("SLSTMCell", heads=2)
    for name, p in heads.named_parameters():
        whole.get_parameter(name).data = (
            p.data.clone()
            if name != "weight_hh_l0"
            else torch.cat([torch.block_diag(*rows.chunk(2)) for rows in p.data.chunk(4)])
        )
    assert torch.equal(whole(x)[0], heads(x)[0])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("LSTMCell", {"cell_clip": -1.0}, "cell_clip=-1.0"),
        ("JordanCell", {"output_size": -1}, "output_size=-1"),
        ("JordanCell", {"output_activation": "softmax"}, "output_activation='softmax', expected one of tanh"),
        ("IndRNNCell", {"activation": "sine"}, "activation='sine', expected one of tanh"),
        ("RHNCell", {"depth": 0}, "depth=0"),
        ("MogrifierLSTMCell", {"rounds": -1}, "rounds=-1"),
        ("MogrifierLSTMCell", {"proj_size": 4}, "proj_size=4 with hidden_size=4"),
        ("QRNNCell", {"pooling": "max"}, "pooling='max', expected one of f, fo, ifo"),
        ("QRNNCell", {"window": 0}, "window=0"),
        ("SLSTMCell", {"heads": 3}, "heads=3 with hidden_size=4"),
        ("SLSTMCell", {"heads": 0}, "heads=0"),
        ("UGRNNCell", {"forget_bias": 1.0, "bias": False}, "1.0 for the initial bias of 'g' with bias=False"),
        ("MinLSTMCell", {"forget_bias": 1.0, "bias": False}, "1.0 for the initial bias of 'f' with bias=False"),
    ],
)
def test_wrong_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        nn.CELLS[name](3, 4, **options)


def test_biases_start_where_the_options_say() -> None:
    for name, option, gate in (
        ("UGRNNCell", "forget_bias", slice(4, 8)),
        ("JANETCell", "forget_bias", slice(0, 4)),
        ("SLSTMCell", "forget_bias", slice(4, 8)),
        ("MinLSTMCell", "forget_bias", slice(0, 4)),
        ("RHNCell", "transform_bias", slice(4, 8)),
    ):
        biases = []
        for value in (0.0, 2.0):
            torch.manual_seed(1)
            biases.append(nn.CELLS[name](3, 4, **{option: value}).bias_ih.detach())
        want = torch.zeros_like(biases[0])
        want[gate] = 2.0
        assert torch.allclose(biases[1] - biases[0], want, atol=1e-6), name
    shift = nn.CELLS["LSTMCell"](3, 4, layer_norm=True, forget_bias=1.0).norm_ih_shift
    assert shift.tolist() == [0.0] * 4 + [1.0] * 4 + [0.0] * 8
    rhn = nn.CELLS["RHNCell"](3, 400, transform_bias=-3.0, bias="input")
    assert "bias_hh_2" not in dict(rhn.named_parameters())
