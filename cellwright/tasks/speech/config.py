"""The settings of a recogniser of speech: checked values, no behaviour, and no torch."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, FiniteFloat, NonNegativeInt, PositiveInt, model_validator

from ..labels.config import SequenceConfig
from ..settings import Part

if TYPE_CHECKING:
    from typing_extensions import Self

NonNegative = Annotated[FiniteFloat, Field(ge=0)]


class SpeechConfig(SequenceConfig):
    """Everything that decides a run of `cellwright train speech`, next to the data."""

    task: ClassVar[str] = "speech"
    about: ClassVar[str] = "Train a model that writes what is said in recordings, or gives each of them its label."
    explained: ClassVar[str] = (
        "a folder of recordings (.wav, .flac, ...) with a table of file and transcript (transcripts.tsv), or such a "
        "table; with --level label also a folder per label, or files LABEL_....wav"
    )

    level: Literal["char", "word", "label"] = Field(
        "char", description="what is written: characters or words (N to N, CTC), or one label per recording (N to 1)"
    )
    file: str = Field("", description="the column of a table with the name of the recording")
    text: str = Field("", description="the column with the transcript, or the label")
    lower: bool = Field(False, description="read transcripts in small letters")

    rate: Annotated[int, Field(ge=1000, le=1_000_000)] | None = Field(
        None, description="samples per second; else those of the first recording; others are resampled"
    )
    mels: Annotated[int, Field(ge=1, le=1000)] = Field(40, description="mel filters per frame of 25 ms, every 10 ms")
    normalise: Literal["recording", "training"] = Field(
        "training", description="what makes mean 0 and deviation 1 of each filter: this recording, or all of them"
    )
    deltas: bool = Field(False, description="also how the filters change over time")
    stack: PositiveInt = Field(2, description="frames that go into the net as one step")

    speed: Annotated[FiniteFloat, Field(ge=0, le=0.5)] = Field(
        0.1, description="in training, slower or faster by up to this part"
    )
    shift: NonNegativeInt = Field(0, description="in training, up to so many frames of what was before, in front")
    gain: NonNegative = Field(0.0, description="in training, louder or softer by up to so many decibels")
    noise: NonNegative = Field(0.0, description="in training, a floor of noise up to so many decibels above silence")
    masks: NonNegativeInt = Field(1, description="in training, so many bands and so many spans of time are hidden")
    mask_mels: Part = Field(0.2, description="the widest of these bands, as a part of the filters")
    mask_time: Part = Field(0.2, description="the longest of these spans, as a part of the recording")

    balance: Annotated[FiniteFloat, Field(ge=0, le=1)] = Field(
        0.0, description="weight of rare labels in the loss: 0: by their number, 1: every label the same"
    )
    pool: Literal["last", "mean", "max", "attention"] = Field("max", description="how many states become one label")
    layers: PositiveInt = Field(2, description="layers")
    epochs: PositiveInt = Field(30, description="how often every recording is heard; at least 400 steps")

    @model_validator(mode="after")
    def _fits(self) -> "Self":
        if self.balance and self.level != "label":
            raise ValueError(f"--balance {self.balance:g} weighs labels, and --level {self.level} has none")
        return self
