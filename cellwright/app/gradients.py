"""`cellwright inspect gradients`: how far the gradient of a loss reaches back in time, as a table and a picture."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..cells import find
from ..errors import OptionError
from ..nn import Recurrent, gradient_norms
from ..tasks.pictures import figure_of, save
from ..train.run import Which
from .runs import load

_STEPS = 100  # of cells without a run
_ROWS = (0, 1, 2, 5)  # of the table, times 10, 100, ...

Curves = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Look:
    """What is looked at: sequences, steps (None: as many as there are), and the weights of runs."""

    sequences: int = 32
    steps: int | None = None
    which: Which = "best"

    def __post_init__(self) -> None:
        for option, value in (("--sequences", self.sequences), ("--steps", self.steps)):
            if value is not None and value < 1:
                raise OptionError(f"{option} {value}: expected a number from 1 on")


def of_run(path: Path, look: Look) -> Curves:
    """The curves of a trained net, on the validation data of its training."""
    loaded = load(path, look.which)
    task = loaded.job.task(loaded.config, loaded.net, loaded.job.read(loaded.config))
    task.model.eval()
    layer, losses = loaded.job.last_losses(task, look.sequences, look.steps and look.steps + 1)
    return _curves(gradient_norms(layer, losses), look)


def of_cell(cell: str, options: Mapping[str, Any], inputs: int, hidden: int, look: Look) -> Curves:
    """The curves of a cell with initial weights: inputs N(0, 1), and the loss v . h_T with a unit vector v."""
    torch.manual_seed(1)
    layer = Recurrent(find(cell)(inputs, hidden, **options).definition())
    x = torch.randn((look.steps or _STEPS) + 1, look.sequences, inputs)
    way = torch.nn.functional.normalize(torch.randn(look.sequences, layer.output_size), dim=-1)
    return _curves(gradient_norms(layer, lambda: (layer(x)[0][-1] * way).sum(-1)), look)


def _curves(norms: Mapping[str, Tensor], look: Look) -> Curves:
    """The median over the sequences, as far back as half of them go; of the states that are read forwards."""
    found = {}
    for name, values in norms.items():
        if not name.endswith("_reverse"):
            kept = values[(~values.isnan()).double().mean(1) >= 0.5].numpy()
            found[name] = np.nanmedian(kept, 1)[: None if look.steps is None else look.steps + 1]
    return found


def gathered(parts: Sequence[tuple[str, Curves]], relative: bool) -> Curves:
    """All curves, by the name of the run or cell and of the state; `relative`: to the output's norm at k = 0."""
    found: Curves = {}
    for name, curves in parts:
        last = [curve for state, curve in curves.items() if state.startswith(next(iter(curves)).split("_l")[0])][-1]
        scale = last[0] if relative and last[0] else 1.0
        found |= {f"{name} {state}": curve / scale for state, curve in curves.items()}
    return found


def names(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that differ."""
    parts = [path.absolute().parts for path in paths]
    for n in range(1, max(map(len, parts), default=1) + 1):
        shown = [os.path.join(*part[-n:]) for part in parts]
        if len(set(shown)) == len(shown):
            return shown
    return [str(path) for path in paths]


def table(curves: Curves) -> str:
    """Norms by steps back in time, and what a step multiplies them with on the way from the first to the last."""
    longest = max(map(len, curves.values()))
    rows = {k * 10**e for k in _ROWS for e in range(6) if k * 10**e < longest}
    rows |= {len(curve) - 1 for curve in curves.values()}
    heads = ["k", *curves]
    lines = [[str(k), *(f"{curve[k]:.2e}" if k < len(curve) else "-" for curve in curves.values())]
             for k in sorted(rows)]  # fmt: skip
    lines.append(["per step", *(_per_step(curve) for curve in curves.values())])
    widths = [max(len(line[n]) for line in [heads, *lines]) for n in range(len(heads))]
    return "\n".join("  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
                     for line in [heads, *lines])  # fmt: skip


def _per_step(curve: NDArray[np.float64]) -> str:
    """The mean factor from k = 1 to the last that is not zero."""
    there = np.flatnonzero(curve)
    first, last = (there[there >= 1][0], there[-1]) if (there >= 1).any() else (0, 0)
    return f"x {(curve[last] / curve[first]) ** (1 / (last - first)):.3f}" if last > first else "-"


def draw(curves: Curves, file: Path, relative: bool) -> Path:
    """The curves on a logarithmic scale. OptionError: the file cannot be written."""
    figure, axes = figure_of(7, 4.5)
    for n, (name, curve) in enumerate(curves.items()):
        state = name.split(" ")[-1]
        style = "-" if state.startswith("h") else "--"
        axes.plot(np.where(curve > 0, curve, np.nan), style, color=f"C{n % 10}", label=name)
    axes.set_yscale("log")
    axes.set_xlabel("k, steps back in time")
    axes.set_ylabel("norm of dL / ds" + (", relative to the last step" if relative else ""))
    axes.legend()
    return save(figure, file)


def report(
    runs: Sequence[Path],
    cells: Sequence[str],
    options: Mapping[str, Any],
    sizes: tuple[int, int],
    look: Look,
    relative: bool,
    plot: Path | None,
) -> str:
    """The table; with `plot`, also the picture. OptionError: nothing to look at, or no matplotlib."""
    if not runs and not cells:
        raise OptionError("nothing to look at: name run folders, or --cell lstm --cell rnn for cells without training")
    if plot is not None:
        from .plot import check

        check(plot)
    parts = [(name, of_run(path, look)) for name, path in zip(names(runs), runs, strict=True)]
    parts += [(cell, of_cell(cell, options, *sizes, look)) for cell in cells]
    curves = gathered(parts, relative)
    unit = ", relative to the output at the last step" if relative else ""
    text = (
        f"norm of the gradient of the last step's loss at the state k steps before{unit}; median of {look.sequences} "
        f"sequences\n{table(curves)}"
    )
    return text if plot is None else f"{text}\npicture {draw(curves, plot, relative)}"
