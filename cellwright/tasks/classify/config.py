"""The settings of a classifier of sequences: checked values, no behaviour, and no torch."""

from typing import ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from ..labels.config import LabelsConfig


class ClassifyConfig(LabelsConfig):
    """Everything that decides a run of `cellwright train classify`, next to the data."""

    task: ClassVar[str] = "classify"
    about: ClassVar[str] = "Train a model that gives every text or series its class."
    explained: ClassVar[str] = (
        "CSV, TSV or JSON Lines with a text and a label per row, or with --series a series per row (in JSON "
        "Lines also a list of numbers); or a folder with "
        "a folder of texts per class, or a file per class with a text per line"
    )

    text: str = Field("", description="the column with the text: its name, or its number in a file without names")
    series: NonNegativeInt = Field(0, description="a row is a series, with so many values per step; 0: a text")
    level: Literal["char", "word"] = Field("char", description="what a symbol of a text is")
    limit: PositiveInt = Field(1000, description="symbols of a text that are read")
    pool: Literal["last", "mean", "max", "attention"] = Field("last", description="how many states become one")
