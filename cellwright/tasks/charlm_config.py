"""The settings of a character model and of its training: checked values, no behaviour, and no torch."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

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

from ..errors import OptionError

Part = Annotated[FiniteFloat, Field(ge=0, lt=1)]


class CharLMConfig(BaseModel):
    """Everything that decides a run, next to the text itself; each field is an option of `cellwright train charlm`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())

    texts: tuple[str, ...] = ()  # none: the Python standard library's own source
    glob: str = "*"
    level: Literal["char", "byte"] = "char"
    validation: Annotated[Part, Field(gt=0)] = 0.05  # fractions of the text, at its end
    test: Part = 0.05

    cell: str = "lstm"
    options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    hidden: PositiveInt = 128
    layers: PositiveInt = 2
    dropout: Part = 0.0
    recurrent_dropout: Part = 0.0
    zoneout: Part = 0.0
    weight_drop: Part = 0.0
    embed: NonNegativeInt = 0  # 0: one-hot input
    tie: bool = False

    batch: PositiveInt = 50
    chunk: PositiveInt = 50
    steps: PositiveInt = 4000
    lr: Annotated[FiniteFloat, Field(gt=0)] = 2e-3
    warmup: NonNegativeInt | None = None  # steps; None: a tenth of the training, 100 at most
    decay: Literal["cosine", "none"] = "cosine"
    final: Annotated[FiniteFloat, Field(ge=0, le=1)] = 0.1  # the last learning rate, as a fraction of lr
    clip: Annotated[FiniteFloat, Field(ge=0)] = 5.0  # largest gradient norm; 0: no clipping
    patience: NonNegativeInt = 0  # evaluations without improvement before stopping; 0: never
    eval_every: PositiveInt = 500  # steps
    sample_length: NonNegativeInt = 200  # symbols shown at each evaluation
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1

    @model_validator(mode="after")
    def _consistent(self) -> "CharLMConfig":
        if self.validation + self.test >= 1:
            raise ValueError(f"--validation {self.validation} and --test {self.test} leave no text for training")
        if self.warmup is not None and self.warmup > self.steps:
            raise ValueError(f"--warmup {self.warmup} is longer than the training: --steps {self.steps}")
        return self

    @property
    def warmup_steps(self) -> int:
        """The steps over which the learning rate rises."""
        return min(100, self.steps // 10) if self.warmup is None else self.warmup

    @property
    def wrappers(self) -> dict[str, float]:
        """The keywords of the recurrent layers that are not zero."""
        names = ("recurrent_dropout", "zoneout", "weight_drop")
        return {name: rate for name in names if (rate := getattr(self, name))}

    @classmethod
    def checked(cls, values: Mapping[str, Any]) -> "CharLMConfig":
        """The settings with these values and defaults for the others. OptionError: one of them is not possible."""
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise OptionError(_sentence(first["loc"], first["msg"], first["input"])) from None

    def with_steps(self, steps: int) -> "CharLMConfig":
        """The same settings for a training of another length."""
        return self.checked({**self.model_dump(), "steps": steps})


def _sentence(place: tuple[int | str, ...], message: str, value: object) -> str:
    """One of pydantic's errors in the words of the command line."""
    if not place:
        return message.removeprefix("Value error, ")
    option = "--" + str(place[0]).replace("_", "-")
    return f"{option} {value}: {message[:1].lower()}{message[1:]}"
