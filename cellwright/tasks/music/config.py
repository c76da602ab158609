"""The settings of a model of music: checked values, no behaviour, and no torch."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, FiniteFloat, NonNegativeInt, PositiveInt

from ..settings import Part, PartsConfig


class MusicConfig(PartsConfig):
    """Everything that decides a run of `cellwright train music`, next to the data."""

    task: ClassVar[str] = "music"
    about: ClassVar[str] = "Train a model of piano rolls: which of 88 keys are down at the next step."
    explained: ClassVar[str] = (
        "MIDI files or folders of them; .npy or .npz with piano rolls [T, 88]; .json with lists of pitches per step; "
        ".mat with traindata, validdata, testdata"
    )

    looks: ClassVar[int] = 100

    validation: Part = Field(0.1, description="part of DATA for validation, drawn by chance where files name no parts")
    step: Literal["1/4", "1/8", "1/16", "1/32"] = Field("1/8", description="a step of MIDI files, in whole notes")
    outside: Literal["refuse", "drop"] = Field("refuse", description="what becomes of notes outside the 88 keys")
    classes: bool = Field(False, description="tunes have a class: their folder in DATA, or their name in a .json file")
    transpose: int = Field(0, ge=0, le=11, description="move tunes by up to so many semitones by chance in training")
    window: NonNegativeInt = Field(256, description="steps per sequence in training; 0: whole tunes")

    hidden: PositiveInt = Field(256, description="units per layer")
    dropout: Part = Field(0.5, description="between layers and before the output")
    input_dropout: Part = Field(0.0, description="of the keys that go in")
    recurrent_dropout: Part = Field(0.5, description="on the state's way to the next step, one mask per sequence")
    lr: Annotated[FiniteFloat, Field(gt=0)] = Field(5e-3, description="learning rate of Adam")
    batch: PositiveInt = Field(8, description="sequences per step")
    epochs: PositiveInt = Field(100, description="how often every sequence is seen; at least 400 steps")
    eval_every: PositiveInt | None = Field(
        None, description="steps between evaluations; else once per epoch or 100 in all"
    )
    patience: NonNegativeInt = Field(15, description="stop after so many evaluations without improvement; 0: do not")
