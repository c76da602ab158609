"""The settings of a tagger, a label per step: checked values, no behaviour, and no torch."""

from typing import ClassVar

from pydantic import Field, NonNegativeInt

from ..labels.config import LabelsConfig


class TagConfig(LabelsConfig):
    """Everything that decides a run of `cellwright train tag`, next to the data."""

    task: ClassVar[str] = "tag"
    about: ClassVar[str] = (
        "Train a model that gives every word of a sentence, or every frame of a recording, its label."
    )
    explained: ClassVar[str] = (
        "CoNLL or CoNLL-U columns, a word per line and an empty line between sentences; or CSV, TSV or JSON Lines "
        "with a frame per row: a label and numbers"
    )

    word: str = Field("", description="the column of the words: a name of CoNLL-U, or a number from 1 on")
    drop: tuple[str, ...] = Field((), description="a column of frames that is no feature, such as a time; repeatable")
    sequence: str = Field("", description="a column that changes where a new recording begins; else one per file")
    deltas: bool = Field(False, description="also how much the numbers of a frame differ from those of the one before")
    window: NonNegativeInt = Field(128, description="frames per sequence in training; 0: whole recordings")
    characters: NonNegativeInt = Field(
        64, description="units per direction that read the characters of a word; 0: none"
    )
