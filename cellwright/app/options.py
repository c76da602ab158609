"""Settings as options of the command line: one per field, with the field's description as its help."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from ..errors import OptionError
from ..tasks.settings import TrainConfig

OPTION = "--option"
Work = Callable[[TrainConfig, set[str], Mapping[str, Any]], None]


def training_command(config: type[TrainConfig], work: Work) -> Callable[..., None]:
    """The function of `cellwright train TASK`: its parameters are the settings, `--out`, `--resume`, ...

    It calls `work` with the settings, the names of those that were given, and the values of the other options.
    """

    def command(context: typer.Context, **values: Any) -> None:
        given = {name for name in context.params if _explicit(context, name)}
        if values["resume"] is not None and (more := sorted(given - {"resume", "steps", "profile", "plot"})):
            names = ", ".join(_shown(config, name) for name in more)
            raise OptionError(f"{names}: a resumed run keeps its settings; only --steps goes with --resume")
        fields = {name: _read(config.model_fields[name], values[name]) for name in config.model_fields}
        work(config.checked(fields), given, values)

    own = {name: field for name, field in config.model_fields.items() if name not in TrainConfig.model_fields}
    common = {name: field for name, field in config.model_fields.items() if name not in own}
    parameters = [_parameter("context", typer.Context)]
    parameters.append(_argument(config, own.pop(config.argument_field())))
    parameters += [_parameter(name, kind, default) for name, (kind, default) in _FOLDERS.items()]
    parameters += [_option(name, field) for name, field in {"hidden": common.pop("hidden"), **own, **common}.items()]
    parameters += [_parameter(name, kind, default) for name, (kind, default) in _MORE.items()]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__doc__ = f"{config.about}\n\nCtrl-C saves the run and says how to go on."
    return command


_FOLDERS: dict[str, tuple[Any, Any]] = {
    "out": (Annotated[Path | None, typer.Option(help="a new folder for the run", show_default=False)], None),
    "resume": (
        Annotated[
            Path | None,
            typer.Option(
                metavar="RUN", help="go on exactly where this run stopped; goes with --steps only", show_default=False
            ),
        ],
        None,
    ),
}
_MORE: dict[str, tuple[Any, Any]] = {
    "profile": (Annotated[bool, typer.Option("--profile", help="say where the time went")], False),
    "plot": (
        Annotated[
            bool, typer.Option("--plot", help="pictures in the run folder: loss curves, and what the task shows")
        ],
        False,
    ),
}


def cell_options(pairs: Sequence[str] | None) -> dict[str, Any]:
    """`["peephole=true", "forget_bias=1.0"]` to values. OptionError: no `=`, or the same name twice."""
    values: dict[str, Any] = {}
    for pair in pairs or ():
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise OptionError(f"{OPTION} {pair}: expected NAME=VALUE, for example {OPTION} peephole=true")
        if name in values:
            raise OptionError(f"{OPTION} {name} is given twice; give it once")
        values[name] = _value(text)
    return values


def _argument(config: type[TrainConfig], field: FieldInfo) -> inspect.Parameter:
    """Files, or one word."""
    files = get_origin(field.annotation) is tuple
    shown = typer.Argument(metavar=config.shown, help=config.explained, show_default=False)
    kind: Any = list[str] | None if files else str
    return _parameter(config.argument_field(), Annotated[kind, shown], None if files else field.default)


def _option(name: str, field: FieldInfo) -> inspect.Parameter:
    """A field as an option: a flag, a list, a choice in words, or a value."""
    kind, default, help = field.annotation, field.get_default(call_default_factory=True), field.description or ""
    spelled = "--" + name.replace("_", "-")
    if get_origin(kind) is dict:
        shown = typer.Option(OPTION, metavar="NAME=VALUE", help=help)
        return _parameter(name, Annotated[list[str] | None, shown], None)
    if get_origin(kind) is tuple:
        many: Any = list[_plain(get_args(kind)[0])] | None  # type: ignore[misc]
        default = [*default] or None
        return _parameter(name, Annotated[many, typer.Option(spelled, help=help)], default)
    if kind is bool:
        both = f"{spelled}/--no-{name.replace('_', '-')}" if default else spelled
        return _parameter(name, Annotated[bool, typer.Option(both, help=help)], default)
    if get_origin(kind) is Literal:
        metavar = "|".join(filter(None, get_args(kind)))
        return _parameter(name, Annotated[str, typer.Option(spelled, metavar=metavar, help=help)], default)
    if get_origin(kind) in (Union, UnionType):
        kind = next(part for part in get_args(kind) if part is not NoneType)
    plain = _plain(kind)
    plain = plain | None if default is None else plain
    annotated: Any = Annotated[plain, typer.Option(spelled, help=help, show_default=default not in (None, ""))]
    return _parameter(name, annotated, default)


def _plain(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _read(field: FieldInfo, value: Any) -> Any:
    """What typer gives, as what the settings take."""
    if get_origin(field.annotation) is dict:
        return cell_options(value)
    return tuple(value or ()) if get_origin(field.annotation) is tuple else value


def _explicit(context: typer.Context, name: str) -> bool:
    """Whether an option was given, and not left at its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT")


def _shown(config: type[TrainConfig], name: str) -> str:
    return OPTION if name == "options" else config.spelled(name)


def _value(text: str) -> bool | int | float | str:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
