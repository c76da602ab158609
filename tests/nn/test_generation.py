"""The compiled step of generation against the layers run one after the other."""

from typing import Any

import pytest
import torch

import cellwright
from cellwright import Equations, Recurrent, tanh
from cellwright.cells import GRU, LSTM, Elman
from cellwright.nn import stepper
from cellwright.tasks.charlm.model import CharModel


class Normed(Equations):
    """Sums over the units, which threads cannot share."""

    def step(self, x: Any, h: Any) -> Any:
        return tanh(self.norm("n", self.linear("a", x) + self.linear("a", h)))


CELLS = {
    "elman": Elman,
    "lstm": LSTM,
    "lstm projected": lambda i, h: LSTM(i, h, proj_size=(h + 1) // 2) if h > 1 else LSTM(i, h),
    "peephole": lambda i, h: LSTM(i, h, peephole=True, coupled=True),
    "normed": Normed,
    "gru": GRU,
    "gru before": lambda i, h: GRU(i, h, reset_after=False),
}


def model(cell: Any, symbols: int, hidden: int, embed: int = 0) -> CharModel:
    torch.manual_seed(0)
    first = cell(embed or symbols, hidden).definition()
    made = CharModel([first, cell(first.output_size, hidden).definition()], symbols, embed=embed).eval()
    with torch.no_grad():
        for p in made.parameters():
            p.mul_(2)
    return made


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("symbols", "hidden", "embed", "streams"), [(2, 1, 0, 1), (17, 20, 5, 3), (96, 150, 0, 1)])
@pytest.mark.parametrize("name", CELLS)
def test_a_step_is_the_layers_and_the_output(
    name: str, symbols: int, hidden: int, embed: int, streams: int, threads: int
) -> None:
    net = model(CELLS[name], symbols, hidden, embed)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            _, state = net(torch.randint(symbols, (4, streams)))
            steps = net.stepper(state, streams)
            assert steps is not None
            for _ in range(6):
                ids = torch.randint(symbols, (streams,))
                steps.ids.copy_(ids)
                got = steps.step().clone()
                want, state = net(ids.unsqueeze(0), state)
                assert torch.allclose(got, want[0], atol=2e-6, rtol=1e-5)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0, 5.0])
def test_symbols_are_drawn_where_the_chance_falls(temperature: float) -> None:
    net = model(LSTM, 40, 24)
    with torch.inference_mode():
        steps = net.stepper(None, 200)
        ids, chances = torch.zeros(200, dtype=torch.int64), torch.linspace(0, 1, 201)[:-1]
        steps.ids.copy_(ids)
        got = steps.draw(chances, temperature).clone()
        logits = net(ids.unsqueeze(0))[0][0].double()
    if temperature == 0:
        assert torch.equal(got, logits.argmax(-1))
        return
    ends = (logits / temperature).softmax(-1).cumsum(-1)
    starts = torch.cat([torch.zeros(200, 1), ends[:, :-1]], 1)
    rows = torch.arange(200)
    # The chance lies in the symbol's share of [0, 1), up to roundings of float32.
    assert (starts[rows, got] <= chances + 1e-6).all() and (chances <= ends[rows, got] + 1e-6).all()


def test_logits_that_are_no_numbers_give_no_symbol() -> None:
    net = model(Elman, 5, 4)
    with torch.no_grad():
        net.output.bias[2] = torch.nan
    steps = net.stepper()
    assert int(steps.draw(torch.tensor([0.5]), 1.0)) == -1


def test_without_a_compiled_step_there_is_none() -> None:
    net = model(LSTM, 5, 4)
    with cellwright.use_target("torch"):
        assert net.stepper() is None
    assert net.double().stepper() is None
    both = Recurrent(LSTM, 4, 3, bidirectional=True)
    assert stepper(both, torch.nn.Linear(6, 4)) is None
