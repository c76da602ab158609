"""The settings of the tasks that give labels: one for a sequence, one per step, or some on the way."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, FiniteFloat, NonNegativeInt, PositiveInt

from ..settings import Part, PartsConfig

if TYPE_CHECKING:
    pass


class SequenceConfig(PartsConfig):
    """Sequences that are read as a whole."""

    bidirectional: bool = Field(True, description="read the sequence in both directions")
    chrono: NonNegativeInt = Field(0, description="longest memory in steps that the gates begin with; 0: short ones")
    dropout: Part = Field(0.3, description="on vectors of words, between layers and before the output")
    batch: PositiveInt = Field(32, description="sequences per step")
    patience: NonNegativeInt = Field(8, description="stop after so many evaluations without improvement; 0: do not")


class LabelsConfig(SequenceConfig):
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
