"""The command line: `cellwright train | eval | predict | generate | export | import | show | inspect | doctor`.

Everything that needs torch is imported inside the command that needs it, so that `--help` answers at once.
"""

import io
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from .. import __version__
from ..errors import CellwrightError, OptionError
from ..tasks.job import JOBS, settings_of
from ..tasks.settings import TrainConfig
from .options import cell_options, training_command

INTERRUPTED = 130

app = typer.Typer(
    name="cellwright",
    help="Recurrent nets from their equations: train one, let it write, look inside.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
training = typer.Typer(help="Train a model.", no_args_is_help=True)
app.add_typer(training, name="train")
inspecting = typer.Typer(help="Look inside a trained model, or a cell.", no_args_is_help=True)
app.add_typer(inspecting, name="inspect")

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="the --out of a training", show_default=False)]
Format = Annotated[str, typer.Option("--format", metavar="torch|keras|tf1|flax|onnx", help="whose names and layout")]
Last = Annotated[bool, typer.Option("--last", help="the last weights instead of the best ones")]
Beam = Annotated[
    int, typer.Option(min=0, max=1000, help="of texts: how many are followed at once in the search; 0: the best path")
]
Fill = Annotated[
    str,
    typer.Option(
        metavar="mean|previous|zero", help="what stands for missing numbers, instead of what the training said"
    ),
]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="NAME=VALUE", help="an option of the cell, for example peephole=true; repeatable"),
]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and leave Python: 0, 2 after an error (one sentence on stderr), 130 after Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app(args=arguments, prog_name="cellwright")
    except CellwrightError as error:
        _fail(str(error))
    except BrokenPipeError:
        # What reads the output has gone; the flush at the end of Python must not complain about that either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "can't allocate memory" not in str(error):
            raise
        _fail("there is not enough memory for this; give smaller sizes, such as --hidden, --batch or lengths")
    except OSError as error:
        _fail(f"{error.filename or 'the system'}: {error.strerror or error}")


def _fail(sentence: str) -> None:
    typer.echo(f"error: {sentence}", err=True)
    sys.exit(2)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cellwright {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="show the version", callback=_version, is_eager=True)
    ] = False,
) -> None: ...


@training.callback()
def _train() -> None: ...


def _work(config: TrainConfig, given: set[str], values: Mapping[str, Any]) -> None:
    from ..train.progress import display
    from .runs import Asked, resume, start

    shown, asked = display(Console()), Asked(values["profile"], values["plot"])
    if values["resume"] is not None:
        steps = values["steps"] if "steps" in given else None
        complete = resume(values["resume"], steps, shown, asked, config.task)
    elif values["out"] is None:
        raise OptionError("--out is missing: name a new folder for the run, or --resume an existing one")
    else:
        complete = start(config, values["out"], shown, asked)
    if not complete:
        raise typer.Exit(INTERRUPTED)


for _name in JOBS:
    training.command(_name)(training_command(settings_of(_name), _work))


@app.command()
def generate(
    run: RunFolder,
    prompt: Annotated[
        str | None,
        typer.Option(help="what the text begins with; of music, a file that it begins with", show_default=False),
    ] = None,
    length: Annotated[
        int | None, typer.Option(help="symbols or steps after the prompt", show_default="500 symbols, 64 steps")
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(help="below 1: safer, above 1: wilder, 0: no chance at all", show_default="0.8, of music 1"),
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="draw from the k most probable symbols", show_default="all")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="draw from the most probable symbols with this share", show_default="all")
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option(help="draw from symbols this fraction as probable as the best", show_default="all"),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=2**63 - 1, help="same seed, same text or tune", show_default="chosen and shown"),
    ] = None,
    stop: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="end after this has been written; repeatable")
    ] = None,
    prompt_steps: Annotated[
        int | None, typer.Option(help="music: the first steps of the prompt only", show_default="all")
    ] = None,
    class_: Annotated[str | None, typer.Option("--class", help="music: of which class", show_default=False)] = None,
    tempo: Annotated[
        float | None, typer.Option(help="music: quarter notes per minute in a file", show_default="100")
    ] = None,
    out: Annotated[
        list[Path] | None,
        typer.Option(help="music: a new .mid, .wav or .json file; repeatable", show_default=False),
    ] = None,
    last: Last = False,
) -> None:
    """Let a trained model write a text or a tune, from a prompt or from nothing."""
    values = {k: v for k, v in locals().items() if k not in ("run", "seed", "last") and v is not None and v != []}
    from .runs import load

    loaded = load(run, "last" if last else "best")
    name, job = loaded.config.task, loaded.job
    if not job.writes:
        raise OptionError(f"{run} is a run of {name}, which writes no text; try cellwright predict {run}")
    for option in sorted(set(values) - set(job.writes)):
        spelled = option.strip("_").replace("_", "-")
        raise OptionError(f"--{spelled}: {run} is a run of {name}, which has no such choice; leave it away")
    chosen = secrets.randbelow(2**31) if seed is None else seed
    pieces = job.generate(loaded.config, loaded.net, chosen, **values)
    if seed is None and values.get("temperature") != 0:
        typer.echo(f"seed {chosen}", err=True)
    piece = ""
    for piece in pieces:
        typer.echo(piece, nl=False)
    if not piece.endswith("\n"):
        typer.echo()


@app.command(name="eval")
def evaluate(
    run: RunFolder,
    data: Annotated[list[str], typer.Argument(metavar="DATA", help="files or folders like those of the training")],
    glob: Annotated[str, typer.Option(help="which files of a folder of texts")] = "*",
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="a picture: the confusion matrix, the last forecast", show_default=False),
    ] = None,
    stride: Annotated[
        int | None, typer.Option(min=1, help="of forecasts: steps from one to the next", show_default="as in training")
    ] = None,
    beam: Beam = 0,
    fill: Fill = "",
    last: Last = False,
) -> None:
    """How well a model does on other data: nats and bits per character, accuracy and F1, or errors."""
    from .runs import load

    if plot is not None:
        from .plot import check

        check(plot)
    loaded = load(run, "last" if last else "best")
    options = loaded.job.chosen({"beam": beam, "stride": stride, "fill": fill})
    found = loaded.job.evaluate(loaded.config, loaded.net, data, glob=glob, **options)
    typer.echo(found.text)
    if plot is not None:
        if found.draw is None:
            raise OptionError(f"--plot: {run} is a run of {loaded.config.task}, whose evaluation has no picture")
        typer.echo(f"picture {found.draw(plot)}")


@app.command()
def predict(
    run: RunFolder,
    data: Annotated[list[str], typer.Argument(metavar="DATA", help="files or folders, without labels or with them")],
    out: Annotated[
        Path | None,
        typer.Option(help="a .csv, .tsv, .jsonl or .txt file instead of the terminal", show_default=False),
    ] = None,
    beam: Beam = 0,
    times: Annotated[bool, typer.Option("--times", help="of speech: when each symbol is said, one per line")] = False,
    fill: Fill = "",
    last: Last = False,
) -> None:
    """What a model says about new data: one line per sequence, per word or frame, or per step of the future."""
    from .records import write
    from .runs import load

    loaded = load(run, "last" if last else "best")
    options = loaded.job.chosen({"beam": beam, "times": times, "fill": fill})
    write(loaded.job.predict(loaded.config, loaded.net, data, **options), out)


@app.command()
def export(
    run: RunFolder,
    format_: Format,
    out: Annotated[Path, typer.Option(help="a new file, .npz with arrays by name, or .onnx")],
    last: Last = False,
) -> None:
    """Write the weights of a trained model for another framework."""
    from .exchange import export as work

    typer.echo(work(run, format_, out, "last" if last else "best"))


@app.command(name="import")
def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help=".npz or .safetensors; a .keras file; a TF1 checkpoint; .onnx", show_default=False
        ),
    ],
    format_: Format,
    out: Annotated[Path, typer.Option(help="a new file, .safetensors, with torch.nn's names")],
    cell: Annotated[
        str | None, typer.Option(help="rnn, lstm, gru, or the framework's own name", show_default=False)
    ] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option("--layer", metavar="NAME", help="a layer by its name, or FORWARD,BACKWARD; repeatable, in order"),
    ] = None,
    options: Options = None,
) -> None:
    """Make a layer's weights from those of another framework.

    Options: bias=input (one bias per gate), activation=relu, reset_after=false, batch_first=false; tf1: forget_bias=0.
    """
    from .exchange import import_ as work

    typer.echo(work(file, format_, out, cell, layers, cell_options(options)))


@app.command()
def show(
    cell: Annotated[str, typer.Argument(metavar="CELL", help="rnn, lstm, gru, or path/to/file.py:MyCell")],
    options: Options = None,
    inputs: Annotated[int, typer.Option("--input", help="features of an input, to count the weights")] = 128,
    hidden: Annotated[int, typer.Option(help="units, to count the weights")] = 128,
    latex: Annotated[bool, typer.Option("--latex", help="as LaTeX")] = False,
    target: Annotated[
        str | None, typer.Option(metavar="cpu|torch", help="the code that this target runs", show_default=False)
    ] = None,
) -> None:
    """The equations of a cell, as they are understood, or the code that they become."""
    if latex and target is not None:
        raise OptionError("--latex and --target show different things; give one of them")
    from ..cells import find
    from ..emit.to_latex import latex as as_latex
    from ..lang.show import text as as_text

    definition = find(cell)(inputs, hidden, **cell_options(options)).definition()
    if target is not None:
        from ..nn.scan import Program, source

        typer.echo(source({"": Program(definition)}, target), nl=False)
        return
    typer.echo(as_latex(definition) if latex else as_text(definition))


@inspecting.callback()
def _inspect() -> None: ...


@inspecting.command()
def gradients(
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="RUN", help="folders of trainings", show_default=False)
    ] = None,
    cells: Annotated[
        list[str] | None,
        typer.Option("--cell", metavar="CELL", help="also a cell with initial weights; repeatable", show_default=False),
    ] = None,
    options: Options = None,
    inputs: Annotated[int, typer.Option("--input", help="features of an input of --cell")] = 16,
    hidden: Annotated[int, typer.Option(help="units of --cell")] = 128,
    steps: Annotated[
        int | None,
        typer.Option(help="how far back", show_default="100 for --cell; a chunk of text; else whole sequences"),
    ] = None,
    sequences: Annotated[int, typer.Option(help="sequences to look at")] = 32,
    relative: Annotated[bool, typer.Option("--relative", help="to the norm of the output at the last step")] = False,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="also a picture", show_default=False)] = None,
    last: Last = False,
) -> None:
    """How far back in time the gradient of a loss reaches: its norm at the states k steps before the last one."""
    from .gradients import Look, report

    look = Look(sequences, steps, "last" if last else "best")
    typer.echo(report(runs or [], cells or [], cell_options(options), (inputs, hidden), look, relative, plot))


@app.command()
def doctor() -> None:
    """Versions, threads, and which targets can run on this machine."""
    from .doctor import report

    typer.echo(report())
