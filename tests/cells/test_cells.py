"""The cells against formulas written out by hand, the numbers of the literature, and `find`."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cellwright import LSTM, RNN, Cell, GRUCell, LSTMCell, OptionError, Recurrent, RNNCell, cells
from cellwright.cells import find

F64 = torch.float64


def set_weights(cell: torch.nn.Module, **values: object) -> None:
    with torch.no_grad():
        for name, value in values.items():
            getattr(cell, name).copy_(torch.as_tensor(value, dtype=F64))


def basic() -> RNNCell:
    """The worked example: state 2, input 1, `state @ W` with W = [[.1, .2], [.3, .4]]."""
    cell = RNNCell(1, 2, bias="input", dtype=F64)
    set_weights(cell, weight_ih=[[0.5], [0.6]], weight_hh=[[0.1, 0.3], [0.2, 0.4]], bias_ih=[0.1, -0.1])
    return cell


def test_worked_example() -> None:
    cell, output = basic(), torch.tensor([1.0, 2.0], dtype=F64)
    state = None
    wanted = (
        ((0.6, 0.5), (0.5370495669980352, 0.46211715726000974), 1.5612838815180548),
        ((1.2923401038778066, 1.3922567763036109), (0.8597381843462615, 0.8836664119437349), 2.727071008233731),
    )
    for x, (before, after, y) in zip((1.0, 2.0), wanted, strict=True):
        h, state = cell(torch.tensor([x], dtype=F64), state)
        assert (h.atanh() - torch.tensor(before, dtype=F64)).abs().max() < 1e-12
        assert (h - torch.tensor(after, dtype=F64)).abs().max() < 1e-12
        assert abs((h @ output).item() + 0.1 - y) < 1e-12


def test_worked_example_as_a_layer() -> None:
    layer = Recurrent([basic()])
    output, (last,) = layer(torch.tensor([[[1.0]], [[2.0]]], dtype=F64))
    assert (output[1, 0] - torch.tensor([0.8597381843462615, 0.8836664119437349], dtype=F64)).abs().max() < 1e-12
    assert torch.equal(last[0], output[1])


def test_parameter_count() -> None:
    """(n + m) n + n + n k + k with state n, input m, output k."""
    for n, m, k in ((2, 1, 1), (5, 3, 4)):
        layer, readout = RNN(m, n, bias="input"), torch.nn.Linear(n, k)
        count = sum(p.numel() for p in (*layer.parameters(), *readout.parameters()))
        assert count == (n + m) * n + n + n * k + k
        assert (n, m, k) != (2, 1, 1) or count == 11


def test_the_two_forms_of_one_to_many() -> None:
    """X = 1 at the first step only, and at every step: not the same."""
    layer = Recurrent([basic()])
    once, _ = layer(torch.tensor([[[1.0]], [[0.0]]], dtype=F64))
    always, _ = layer(torch.tensor([[[1.0]], [[1.0]]], dtype=F64))
    assert torch.allclose(once[1, 0], torch.tensor([0.2843, 0.1899], dtype=F64), atol=5e-5)
    assert torch.allclose(always[1, 0], torch.tensor([0.6597, 0.6597], dtype=F64), atol=5e-5)


def test_reset_gate_of_zero_ignores_the_past() -> None:
    """h = (.5, -.5), x = 1: candidate for r = 0 and r = 1 (with the update gate shut, h' = n)."""
    for reset, wanted in ((-1e9, (0.53705, 0.46212)), (1e9, (0.46212, 0.37995))):
        cell = GRUCell(1, 2, reset_after=False, bias="input", dtype=F64)
        set_weights(
            cell,
            weight_ih=[[0.0]] * 4 + [[0.5], [0.6]],
            weight_hh=[[0.0, 0.0]] * 4 + [[0.1, 0.3], [0.2, 0.4]],
            bias_ih=[reset, reset, -1e9, -1e9, 0.1, -0.1],
        )
        h, _ = cell(torch.ones(1, dtype=F64), torch.tensor([0.5, -0.5], dtype=F64))
        assert torch.allclose(h, torch.tensor(wanted, dtype=F64), atol=5e-6)


def test_zero_recurrent_weights_give_a_feed_forward_layer() -> None:
    layer = RNN(3, 5, dtype=F64)
    with torch.no_grad():
        layer.weight_hh_l0.zero_()
    x = torch.randn(6, 4, 3, dtype=F64)
    output, _ = layer(x)
    want = torch.tanh(x @ layer.weight_ih_l0.t() + layer.bias_ih_l0 + layer.bias_hh_l0)
    assert (output - want).abs().max() < 1e-15


def by_hand(cell: LSTMCell, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The LSTM with all options, written out."""
    names = "fgo" if cell.coupled else "ifgo"
    a = x @ cell.weight_ih.t() + cell.bias_ih + h @ cell.weight_hh.t() + cell.bias_hh
    gate = dict(zip(names, a.chunk(len(names), -1), strict=True))
    p = {k: getattr(cell, f"p_{k}", 0.0) for k in "ifo"}
    f = torch.sigmoid(gate["f"] + p["f"] * c)
    i = 1 - f if cell.coupled else torch.sigmoid(gate["i"] + p["i"] * c)
    c = f * c + i * torch.tanh(gate["g"])
    h = torch.sigmoid(gate["o"] + p["o"] * c) * torch.tanh(c)
    return (h @ cell.weight_hr.t() if cell.proj_size else h), c


@pytest.mark.parametrize("peephole", [False, True])
@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("proj_size", [0, 2])
def test_lstm_options_by_hand(peephole: bool, coupled: bool, proj_size: int) -> None:
    cell = LSTMCell(3, 5, peephole=peephole, coupled=coupled, proj_size=proj_size, dtype=F64)
    assert ("p_o" in dict(cell.named_parameters())) == peephole
    assert ("p_i" in dict(cell.named_parameters())) == (peephole and not coupled)
    x, h, c = torch.randn(4, 3, dtype=F64), torch.randn(4, proj_size or 5, dtype=F64), torch.randn(4, 5, dtype=F64)
    output, (h1, c1) = cell(x, (h, c))
    want_h, want_c = by_hand(cell, x, h, c)
    assert torch.equal(output, h1)
    assert (h1 - want_h).abs().max() < 1e-14
    assert (c1 - want_c).abs().max() < 1e-14


def test_gru_reset_before_by_hand() -> None:
    cell = GRUCell(3, 5, reset_after=False, dtype=F64)
    x, h = torch.randn(4, 3, dtype=F64), torch.randn(4, 5, dtype=F64)
    (w_r, w_z, w_n), (u_r, u_z, u_n) = cell.weight_ih.chunk(3), cell.weight_hh.chunk(3)
    b_r, b_z, b_n = (cell.bias_ih + cell.bias_hh).chunk(3)
    r, z = torch.sigmoid(x @ w_r.t() + h @ u_r.t() + b_r), torch.sigmoid(x @ w_z.t() + h @ u_z.t() + b_z)
    n = torch.tanh(x @ w_n.t() + (r * h) @ u_n.t() + b_n)
    assert (cell(x, h)[0] - ((1 - z) * n + z * h)).abs().max() < 1e-15


def test_forget_bias_is_part_of_the_weights() -> None:
    torch.manual_seed(3)
    plain = LSTM(3, 5)
    torch.manual_seed(3)
    biased = LSTM(3, 5, forget_bias=1.0)
    change = biased.bias_ih_l0 - plain.bias_ih_l0
    assert torch.allclose(change, torch.tensor([0.0] * 5 + [1.0] * 5 + [0.0] * 10), atol=1e-6)
    assert torch.equal(plain.bias_hh_l0, biased.bias_hh_l0)
    biased.load_state_dict(plain.state_dict())
    x = torch.randn(4, 2, 3)
    assert torch.equal(plain(x)[0], biased(x)[0])


def test_initial_weights_fill_their_interval() -> None:
    layer = LSTM(64, 64, peephole=True)
    for name, p in layer.named_parameters():
        assert p.abs().max() <= 1 / math.sqrt(64), name
        assert p.detach().std() == pytest.approx(2 / math.sqrt(12 * 64), rel=0.25), name


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LSTMCell(3, 5, proj_size=5), "proj_size=5 with hidden_size=5"),
        (lambda: LSTMCell(3, 5, proj_size=-1), "proj_size=-1"),
        (lambda: LSTMCell(3, 5, forget_bias=1.0, bias=False), "forget_bias=1.0 with bias=False"),
        (lambda: RNNCell(3, 5, activation="tanhh"), "activation='tanhh', expected one of tanh, relu"),
        (lambda: GRUCell(3, 5, reset=True), "unknown option reset=True; its options are: reset_after=True"),
    ],
)
def test_options_that_do_not_go(make: object, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make()  # type: ignore[operator]


def test_find_built_in_cells() -> None:
    assert find("lstm") is cells.LSTM
    assert find("GRU") is cells.GRU
    assert [find(name) for name in cells.BY_NAME] == list(cells.CELLS)
    assert (find("rnn"), find("minGRU")) == (cells.Elman, cells.MinGRU)
    with pytest.raises(OptionError, match=r"got the cell 'ltsm', expected rnn, jordan, lstm, .* minlstm or path"):
        find("ltsm")


MINE = """
from cellwright import Cell, sigmoid, tanh
class Mine(Cell):
    states = "h"
    def step(self, x, h):
        z, n = self.linear("z n", x) + self.linear("z n", h)
        return h + sigmoid(z) * (tanh(n) - h)
"""


def test_find_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    found = find(f"{file}:Mine")
    assert issubclass(found, Cell)
    assert find(str(file)).__name__ == "Mine"
    assert Recurrent(found, 3, 4)(torch.randn(5, 2, 3))[0].shape == (5, 2, 4)
    with pytest.raises(OptionError, match=r"mine.py has Mine; write"):
        find(f"{file}:Other")


def test_find_takes_the_last_py(tmp_path: Path) -> None:
    folder = tmp_path / ".pyx" / "a.py"
    folder.mkdir(parents=True)
    (folder / "mine.py").write_text(MINE)
    assert find(f"{folder}/mine.py:Mine").__name__ == "Mine"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("def f(:", "line 1 could not be run: SyntaxError"),
        ("x = 1\nimport nothing_of_this_name", "line 2 could not be run: ModuleNotFoundError"),
        ("x = 1", "has no class derived from cellwright.Cell"),
        ("import sys\nsys.exit(3)", "line 2 could not be run: SystemExit"),
    ],
)
def test_find_in_a_bad_file(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "bad.py"
    file.write_text(content)
    with pytest.raises(OptionError, match=message):
        find(f"{file}:Mine")
    with pytest.raises(OptionError, match="there is no file"):
        find(str(tmp_path / "absent.py"))
