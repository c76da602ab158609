"""The settings that every training has: checked values, no behaviour, and no torch.

A task's settings derive from these. Each field is an option of `cellwright train TASK`, its description the help.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)

from ..errors import CellwrightError, OptionError

if TYPE_CHECKING:
    from typing_extensions import Self

_SPELLED = re.compile(r"--([a-z][a-z-]*)(?: (-?\d[\w.+-]*|\S+(?=:)))?")  # an option, and its value if that is told
Part = Annotated[FiniteFloat, Field(ge=0, lt=1)]


class TrainConfig(BaseModel):
    """A net, and how long and how fast it learns."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())

    task: ClassVar[str]  # its name on the command line
    about: ClassVar[str]  # the help of the command
    paths: ClassVar[tuple[str, ...]]  # the fields that are files or folders
    argument: ClassVar[str] = ""  # the field that is the command's argument; "": the first one of these
    shown: ClassVar[str]  # how the help names that argument, and what it says of it
    explained: ClassVar[str]

    hidden: PositiveInt = Field(128, description="units per layer")
    layers: PositiveInt = Field(1, description="layers")
    cell: str = Field("lstm", description="rnn, lstm, gru, or path/to/file.py:MyCell")
    options: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="an option of the cell, for example peephole=true; repeatable"
    )
    dropout: Part = Field(0.0, description="between layers and before the output")
    lr: Annotated[FiniteFloat, Field(gt=0)] = Field(2e-3, description="learning rate of Adam")
    warmup: NonNegativeInt | None = Field(None, description="steps over which it rises; a tenth, at most 100")
    decay: Literal["cosine", "none"] = Field("cosine", description="how it falls afterwards")
    final: Annotated[FiniteFloat, Field(ge=0, le=1)] = Field(0.1, description="where it ends, as a fraction of --lr")
    clip: Annotated[FiniteFloat, Field(ge=0)] = Field(5.0, description="largest norm of the gradient; 0: no limit")
    patience: NonNegativeInt = Field(0, description="stop after so many evaluations without improvement; 0: do not")
    best: str = Field(
        "loss",
        description="the measure of an evaluation that chooses the weights to keep: loss, accuracy, macro-f1, ...",
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(1, description="of weights, dropout, samples and order")

    @classmethod
    def argument_field(cls) -> str:
        """The name of the field that is the command's argument."""
        return cls.argument or cls.paths[0]

    @property
    def planned_steps(self) -> int | None:
        """Steps of the training; None: not known before the data are."""
        return getattr(self, "steps", None)

    @property
    def warmup_steps(self) -> int:
        """The steps over which the learning rate rises."""
        return min(100, (self.planned_steps or 0) // 10) if self.warmup is None else self.warmup

    @model_validator(mode="after")
    def _short_warmup(self) -> "Self":
        if self.warmup is not None and self.planned_steps is not None and self.warmup > self.planned_steps:
            raise ValueError(f"--warmup {self.warmup} is longer than the training: --steps {self.planned_steps}")
        return self

    @classmethod
    def checked(cls, values: Mapping[str, Any]) -> "Self":
        """The settings with these values and defaults for the others. OptionError: one of them is not possible."""
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            if first["type"] == "extra_forbidden":
                name = str(first["loc"][0])
                near = get_close_matches(name, cls.model_fields, 3) or ["one of " + ", ".join(cls.model_fields)]
                raise OptionError(f"got the setting {name!r}, expected {' or '.join(near)}") from None
            raise OptionError(cls._sentence(first["loc"], first["msg"], first["input"])) from None

    @classmethod
    def _sentence(cls, place: tuple[int | str, ...], message: str, value: object) -> str:
        """One of pydantic's errors in the words of the command line."""
        if not place:
            return message.removeprefix("Value error, ")
        return f"{cls.spelled(str(place[0]))} {value}: {message[:1].lower()}{message[1:]}"

    @classmethod
    def spelled(cls, name: str) -> str:
        """How the command line names a setting."""
        return cls.shown.rstrip(".") if name == cls.argument_field() else "--" + name.replace("_", "-")

    def changed(self, **values: Any) -> "Self":
        """The same settings but for these values. OptionError: one of them is not possible."""
        return self.checked({**self.model_dump(), **values})

    def with_steps(self, steps: int) -> "Self":
        """The same settings for a training of another length."""
        return self.changed(steps=steps)

    def absolute(self) -> "Self":
        """The same settings with paths that mean the same in every folder."""
        return self.changed(
            **{name: tuple(str(Path(path).absolute()) for path in getattr(self, name)) for name in self.paths}
        )


@contextmanager
def in_python() -> Iterator[None]:
    """Errors within name settings as Python spells them: `hidden=0`, `test_data`, not `--hidden 0`, `--test-data`."""

    def spelled(found: re.Match[str]) -> str:
        name, value = found[1].replace("-", "_"), found[2]
        return name if value is None else f"{name}={value}"

    try:
        yield
    except CellwrightError as error:
        if (sentence := _SPELLED.sub(spelled, str(error))) == str(error):
            raise
        raise type(error)(sentence) from None


class EpochsConfig(TrainConfig):
    """A training over a number of sequences, which are seen several times."""

    fewest: ClassVar[int] = 400  # steps, however few sequences there are
    looks: ClassVar[int] = 40  # evaluations, if they are not once per epoch

    epochs: PositiveInt = Field(20, description="how often every sequence is seen; at least 400 steps")
    steps: PositiveInt | None = Field(None, description="updates of the weights, instead of --epochs")
    eval_every: PositiveInt | None = Field(
        None, description="steps between evaluations; else once per epoch or 40 in all"
    )

    def scheduled(self, batches: int, per_epoch: int = 1) -> "Self":
        """With steps and evaluations, from the batches of an epoch and the evaluations in it."""
        steps = self.steps or max(self.epochs * batches, self.fewest)
        every = self.eval_every or min(steps, max(-(-batches // per_epoch), steps // self.looks))
        return self.changed(steps=steps, eval_every=every)


class PartsConfig(EpochsConfig):
    """Files, of which some, or parts of them, are for validation and test."""

    paths: ClassVar[tuple[str, ...]] = ("data", "validation_data", "test_data")
    shown: ClassVar[str] = "DATA"

    data: tuple[str, ...] = ()
    validation_data: tuple[str, ...] = Field((), description="files for validation instead of a part of DATA")
    test_data: tuple[str, ...] = Field((), description="files for the test at the end")
    validation: Part = Field(0.1, description="part of DATA for validation, drawn by chance")
    test: Part = Field(0.0, description="part of DATA for the test at the end, drawn by chance")

    @model_validator(mode="after")
    def _parts(self) -> "Self":
        if self.validation + self.test >= 1:
            raise ValueError(f"--validation {self.validation} and --test {self.test} leave no data for training")
        return self
