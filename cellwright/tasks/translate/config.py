"""The settings of a translator: checked values, no behaviour, and no torch."""

from typing import Annotated, ClassVar

from pydantic import Field, FiniteFloat

from ..sequences.config import SequencesConfig


class TranslateConfig(SequencesConfig):
    """Everything that decides a run of `cellwright train translate`, next to the data."""

    task: ClassVar[str] = "translate"
    about: ClassVar[str] = "Train a model that turns one text into another."
    explained: ClassVar[str] = (
        "TSV, CSV or JSON Lines with a source and a target per row; or two files, sources first, whose lines belong "
        "together"
    )

    source: str = Field(
        "",
        description="the column with the source: its name, or its number in a file without names; else the one of "
        "this name, or the first of two",
    )
    target: str = Field("", description="the same for the target; else the second of two")
    bidirectional: bool = Field(True, description="read the source in both directions")
    unknown: Annotated[FiniteFloat, Field(ge=0)] = Field(
        0.25, description="how readily rare symbols of a source are taken for unknown in training, a / (a + count)"
    )
