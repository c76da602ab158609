"""The command line: `cellwright train | generate | eval | export | import | show | doctor`.

Everything that needs torch is imported inside the command that needs it, so that `--help` answers at once.
"""

import io
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from .. import __version__
from ..errors import CellwrightError, OptionError
from ..tasks.charlm_config import CharLMConfig

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

_DEFAULT = CharLMConfig()

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="the --out of a training", show_default=False)]
Format = Annotated[str, typer.Option("--format", metavar="torch|keras|tf1|flax|onnx", help="whose names and layout")]
Last = Annotated[bool, typer.Option("--last", help="the last weights instead of the best ones")]
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


@training.command()
def charlm(
    context: typer.Context,
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TEXT...",
            help="UTF-8 files or folders; none: the source of Python's own library",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="a new folder for the run", show_default=False)] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN", help="go on exactly where this run stopped; goes with --steps only", show_default=False
        ),
    ] = None,
    hidden: Annotated[int, typer.Option(help="units per layer")] = _DEFAULT.hidden,
    layers: Annotated[int, typer.Option(help="layers")] = _DEFAULT.layers,
    cell: Annotated[str, typer.Option(help="rnn, lstm, gru, or path/to/file.py:MyCell")] = _DEFAULT.cell,
    options: Options = None,
    dropout: Annotated[float, typer.Option(help="between layers and before the output")] = _DEFAULT.dropout,
    recurrent_dropout: Annotated[
        float, typer.Option(help="on the state's way to the next step, one mask per chunk and stream")
    ] = _DEFAULT.recurrent_dropout,
    zoneout: Annotated[float, typer.Option(help="how often a unit of a state stays as it was")] = _DEFAULT.zoneout,
    weight_drop: Annotated[float, typer.Option(help="dropout of the recurrent weights")] = _DEFAULT.weight_drop,
    embed: Annotated[int, typer.Option(help="size of an embedding of the symbols; 0: one-hot input")] = _DEFAULT.embed,
    tie: Annotated[bool, typer.Option("--tie", help="the output's weight is the embedding's")] = _DEFAULT.tie,
    level: Annotated[str, typer.Option(metavar="char|byte", help="what a symbol is")] = _DEFAULT.level,
    glob: Annotated[str, typer.Option(help="which files of a folder")] = _DEFAULT.glob,
    validation: Annotated[float, typer.Option(help="part of the text for validation")] = _DEFAULT.validation,
    test: Annotated[float, typer.Option(help="part of the text for the test, at its end")] = _DEFAULT.test,
    batch: Annotated[int, typer.Option(help="streams of text side by side")] = _DEFAULT.batch,
    chunk: Annotated[int, typer.Option(help="symbols per step and stream: how far gradients go back")] = _DEFAULT.chunk,
    steps: Annotated[
        int, typer.Option(help="updates of the weights; with --resume the decay stretches to the new end")
    ] = _DEFAULT.steps,
    lr: Annotated[float, typer.Option(help="learning rate of Adam")] = _DEFAULT.lr,
    warmup: Annotated[
        int | None, typer.Option(help="steps over which it rises", show_default="a tenth of the steps, at most 100")
    ] = _DEFAULT.warmup,
    decay: Annotated[str, typer.Option(metavar="cosine|none", help="how it falls afterwards")] = _DEFAULT.decay,
    final: Annotated[float, typer.Option(help="where it ends, as a fraction of --lr")] = _DEFAULT.final,
    clip: Annotated[float, typer.Option(help="largest norm of the gradient; 0: no limit")] = _DEFAULT.clip,
    patience: Annotated[
        int, typer.Option(help="stop after so many evaluations without improvement; 0: do not")
    ] = _DEFAULT.patience,
    eval_every: Annotated[int, typer.Option(help="steps between evaluations")] = _DEFAULT.eval_every,
    sample_length: Annotated[int, typer.Option(help="symbols to show at each; 0: none")] = _DEFAULT.sample_length,
    seed: Annotated[int, typer.Option(help="of the initial weights, dropout and samples")] = _DEFAULT.seed,
) -> None:
    """Train a model of the characters of a text.

    Ctrl-C saves the run and says how to go on.
    """
    given = {name for name in context.params if _explicit(context, name)}
    if resume is not None and (more := sorted(given - {"resume", "steps"})):
        names = ", ".join("TEXT" if n == "texts" else "--option" if n == "options" else _spelled(n) for n in more)
        raise OptionError(f"{names}: a resumed run keeps its settings; only --steps goes with --resume")
    fields = {name: value for name, value in context.params.items() if name in CharLMConfig.model_fields}
    config = CharLMConfig.checked({**fields, "texts": tuple(texts or ()), "options": _cell_options(options)})

    from ..train.progress import display
    from . import charlm as work

    shown = display(Console())
    if resume is not None:
        complete = work.resume(resume, steps if "steps" in given else None, shown)
    elif out is None:
        raise OptionError("--out is missing: name a new folder for the run, or --resume an existing one")
    else:
        complete = work.start(config, out, shown)
    if not complete:
        raise typer.Exit(INTERRUPTED)


@app.command()
def generate(
    run: RunFolder,
    prompt: Annotated[str, typer.Option(help="what the text begins with", show_default=False)] = "",
    length: Annotated[int, typer.Option(help="symbols to write after the prompt")] = 500,
    temperature: Annotated[float, typer.Option(help="below 1: safer, above 1: wilder, 0: no chance at all")] = 0.8,
    top_k: Annotated[int | None, typer.Option(help="draw from the k most probable symbols", show_default="all")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="draw from the most probable symbols with this share", show_default="all")
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option(help="draw from symbols this fraction as probable as the best", show_default="all"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="same seed, same text", show_default="chosen and shown")] = None,
    stop: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="end after this has been written; repeatable")
    ] = None,
    last: Last = False,
) -> None:
    """Let a trained model write, from a prompt or from nothing."""
    from . import charlm as work
    from .generate import generate as pieces

    loaded = work.load(run, "last" if last else "best")
    chosen = secrets.randbelow(2**31) if seed is None else seed
    text = pieces(
        loaded.model,
        loaded.vocabulary,
        prompt,
        length=length,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        seed=chosen,
        stop=stop or (),
    )
    if seed is None and temperature:
        typer.echo(f"seed {chosen}", err=True)
    typer.echo(prompt, nl=False)
    piece = prompt
    for piece in text:
        typer.echo(piece, nl=False)
    if not piece.endswith("\n"):
        typer.echo()


@app.command(name="eval")
def evaluate(
    run: RunFolder,
    texts: Annotated[list[str], typer.Argument(metavar="TEXT...", help="UTF-8 files or folders", show_default=False)],
    glob: Annotated[str, typer.Option(help="which files of a folder")] = _DEFAULT.glob,
    last: Last = False,
) -> None:
    """How well a model predicts a text: nats and bits per character."""
    from ..tasks.text import read
    from . import charlm as work

    loaded = work.load(run, "last" if last else "best")
    corpus = read(texts, glob)
    typer.echo(work.measure(loaded, corpus))


@app.command()
def export(
    run: RunFolder,
    format_: Format,
    out: Annotated[Path, typer.Option(help="a new file, .npz: arrays by name")],
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
            metavar="FILE", help=".npz or .safetensors; a .keras file; a TF1 checkpoint", show_default=False
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

    typer.echo(work(file, format_, out, cell, layers, _cell_options(options)))


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

    definition = find(cell)(inputs, hidden, **_cell_options(options)).definition()
    if target is not None:
        from ..nn.scan import Program, source

        typer.echo(source({"": Program(definition)}, target), nl=False)
        return
    typer.echo(as_latex(definition) if latex else as_text(definition))


@app.command()
def doctor() -> None:
    """Versions, threads, and which targets can run on this machine."""
    from .doctor import report

    typer.echo(report())


def _explicit(context: typer.Context, name: str) -> bool:
    """Whether an option was given, and not left at its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT")


def _spelled(name: str) -> str:
    return "--" + name.replace("_", "-")


def _cell_options(pairs: Sequence[str] | None) -> dict[str, Any]:
    """`["peephole=true", "forget_bias=1.0"]` to values. OptionError: no `=`, or the same name twice."""
    values: dict[str, Any] = {}
    for pair in pairs or ():
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise OptionError(f"--option {pair}: expected NAME=VALUE, for example --option peephole=true")
        if name in values:
            raise OptionError(f"--option {name} is given twice; give it once")
        values[name] = _value(text)
    return values


def _value(text: str) -> bool | int | float | str:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
