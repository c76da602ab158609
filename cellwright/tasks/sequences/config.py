"""The settings of the tasks that write a text for what they are given."""

from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, NonNegativeInt, PositiveInt, model_validator

from ..settings import Part, PartsConfig


class SequencesConfig(PartsConfig):
    """What `translate` and `caption` have in common."""

    level: Literal["word", "char", "bpe"] = Field(
        "word", description="what a symbol of a text is; bpe: pieces of words, learned from the training data"
    )
    vocabulary: Annotated[int, Field(gt=256)] | None = Field(
        None, description="with --level bpe: pieces at most, of sources and of texts each; 2,000"
    )
    lower: bool = Field(False, description="read and write small letters only")
    longest: PositiveInt = Field(500, description="pairs with a text of more symbols are left out of the training")

    embed: PositiveInt | None = Field(None, description="size of the embedding of symbols; as --hidden")
    attention: Literal["luong", "bahdanau", "none"] = Field("luong", description="how the source is looked at")
    dropout: Part = Field(0.2, description="on vectors of symbols, between layers and before the output")
    sampling: Annotated[FiniteFloat, Field(ge=0, le=1)] = Field(
        0.0, description="scheduled sampling: the chance of an own symbol at the end of the training, from 0 on"
    )
    smoothing: Part = Field(0.0, description="label smoothing in the training loss")
    beam: PositiveInt = Field(5, description="beginnings that are followed when a text is written; 1: greedy")
    alpha: Annotated[FiniteFloat, Field(ge=0)] = Field(0.6, description="length penalty of the beam; 0: none")
    bleu: Literal["13a", "intl", "char", "zh", "none"] = Field("13a", description="how sacreBLEU cuts words")
    batch: PositiveInt = Field(64, description="pairs per step")
    epochs: PositiveInt = Field(20, description="how often every pair is seen; at least 400 steps")
    best: str = Field(
        "loss",
        description="the measure of an evaluation that chooses the weights to keep: loss, bleu, exact, chrf or "
        "cider-d; these are scores of at most 500 texts, written greedily",
    )
    patience: NonNegativeInt = Field(8, description="stop after so many evaluations without improvement; 0: do not")

    @model_validator(mode="after")
    def _vocabulary(self) -> "SequencesConfig":
        if self.vocabulary is not None and self.level != "bpe":
            raise ValueError(f"--vocabulary {self.vocabulary} goes with --level bpe, not {self.level}")
        return self
