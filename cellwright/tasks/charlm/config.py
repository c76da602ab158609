"""The settings of a character model and of its training: checked values, no behaviour, and no torch."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from ..settings import Part, TrainConfig


class CharLMConfig(TrainConfig):
    """Everything that decides a run, next to the text itself; each field is an option of `cellwright train charlm`."""

    task: ClassVar[str] = "charlm"
    about: ClassVar[str] = "Train a model of the characters, bytes, words or pieces of words of a text."
    paths: ClassVar[tuple[str, ...]] = ("texts",)
    shown: ClassVar[str] = "TEXT"
    explained: ClassVar[str] = "UTF-8 files or folders; none: the source of Python's own library"

    texts: tuple[str, ...] = ()
    glob: str = Field("*", description="which files of a folder")
    level: Literal["char", "byte", "word", "bpe"] = Field(
        "char", description="what a symbol is; bpe: pieces of words, learned from the training text"
    )
    vocabulary: PositiveInt | None = Field(None, description="symbols at most: word 10,000, bpe 2,000")
    validation: Annotated[Part, Field(gt=0)] = Field(0.05, description="part of the text for validation")
    test: Part = Field(0.05, description="part of the text for the test, at its end")

    layers: PositiveInt = Field(2, description="layers")
    recurrent_dropout: Part = Field(
        0.0, description="on the state's way to the next step, one mask per chunk and stream"
    )
    zoneout: Part = Field(0.0, description="how often a unit of a state stays as it was")
    weight_drop: Part = Field(0.0, description="dropout of the recurrent weights")
    embed: NonNegativeInt | None = Field(
        None, description="size of an embedding of the symbols; 0: one-hot input; of words and pieces as --hidden"
    )
    tie: bool = Field(False, description="the output's weight is the embedding's")

    batch: PositiveInt = Field(50, description="streams of text side by side")
    chunk: PositiveInt = Field(50, description="symbols per step and stream: how far gradients go back")
    steps: PositiveInt = Field(
        4000, description="updates of the weights; with --resume the decay stretches to the new end"
    )
    eval_every: PositiveInt = Field(500, description="steps between evaluations")
    sample_length: NonNegativeInt = Field(200, description="symbols to show at each; 0: none")

    @model_validator(mode="after")
    def _consistent(self) -> "CharLMConfig":
        if self.validation + self.test >= 1:
            raise ValueError(f"--validation {self.validation} and --test {self.test} leave no text for training")
        if self.vocabulary is not None:
            if self.level in ("char", "byte"):
                raise ValueError(f"--vocabulary {self.vocabulary} goes with --level word or bpe, not {self.level}")
            least = 2 if self.level == "word" else 257
            if self.vocabulary < least:
                known = "one word and <unk>" if self.level == "word" else "the 256 bytes and one pair"
                raise ValueError(f"--vocabulary {self.vocabulary}: at least {least} are needed, {known}")
        return self

    @property
    def wrappers(self) -> dict[str, float]:
        """The keywords of the recurrent layers that are not zero."""
        names = ("recurrent_dropout", "zoneout", "weight_drop")
        return {name: rate for name in names if (rate := getattr(self, name))}
