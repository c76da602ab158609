"""The settings of the tasks that give labels: one for a sequence, one per step, or some on the way."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, FiniteFloat, NonNegativeInt, PositiveInt, model_validator

from ..settings import Part, TrainConfig

if TYPE_CHECKING:
    from typing_extensions import Self


class PartsConfig(TrainConfig):
    """Data in parts, read several times in batches of sequences."""

    paths: ClassVar[tuple[str, ...]] = ("data", "validation_data", "test_data")
    shown: ClassVar[str] = "DATA"

    data: tuple[str, ...] = ()
    validation_data: tuple[str, ...] = Field((), description="files for validation instead of a part of DATA")
    test_data: tuple[str, ...] = Field((), description="files for the test at the end")
    validation: Part = Field(0.1, description="part of DATA for validation, drawn by chance")
    test: Part = Field(0.0, description="part of DATA for the test at the end, drawn by chance")

    bidirectional: bool = Field(True, description="read the sequence in both directions")
    chrono: NonNegativeInt = Field(0, description="longest memory in steps that the gates begin with; 0: short ones")
    dropout: Part = Field(0.3, description="on vectors of words, between layers and before the output")
    batch: PositiveInt = Field(32, description="sequences per step")
    epochs: PositiveInt = Field(20, description="how often every sequence is seen; at least 400 steps")
    steps: PositiveInt | None = Field(None, description="updates of the weights, instead of --epochs")
    eval_every: PositiveInt | None = Field(
        None, description="steps between evaluations; else once per epoch or 40 in all"
    )
    patience: NonNegativeInt = Field(8, description="stop after so many evaluations without improvement; 0: do not")

    @model_validator(mode="after")
    def _parts(self) -> "Self":
        if self.validation + self.test >= 1:
            raise ValueError(f"--validation {self.validation} and --test {self.test} leave no data for training")
        return self


class LabelsConfig(PartsConfig):
    """What `classify` and `tag` have in common."""

    label: str = Field("", description="the column with the label: its name, or its number in a file without names")
    fill: Literal["", "mean", "previous", "zero"] = Field("", description="what stands for missing numbers")

    embed: NonNegativeInt | None = Field(None, description="size of the embedding of words; 0: one-hot")
    unknown: Annotated[FiniteFloat, Field(ge=0)] = Field(
        0.25, description="how readily rare symbols are taken for unknown in training, a / (a + count)"
    )
    balance: Annotated[FiniteFloat, Field(ge=0, le=1)] = Field(
        0.0, description="weight of rare classes in the loss: 0: by their number, 1: every class the same"
    )
