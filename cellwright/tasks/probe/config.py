"""The settings of a probe of memory: checked values, no behaviour, and no torch."""

from typing import ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from ..settings import TrainConfig


class ProbeConfig(TrainConfig):
    """Everything that decides a run of `cellwright train probe`."""

    task: ClassVar[str] = "probe"
    about: ClassVar[str] = "Train a model on a problem that makes its own data and needs a long memory."
    paths: ClassVar[tuple[str, ...]] = ()
    argument: ClassVar[str] = "problem"
    shown: ClassVar[str] = "PROBLEM"
    explained: ClassVar[str] = (
        "adding: the sum of two marked numbers; copy: ten symbols after a delay; parity: whether the ones among the "
        "bits are odd; reber: the next symbol of the embedded Reber grammar; none: adding"
    )

    problem: Literal["adding", "copy", "parity", "reber"] = "adding"
    length: PositiveInt | None = Field(
        None, description="steps of adding (else 100), of the delay of copy (100), at most of parity (20)"
    )
    chrono: NonNegativeInt = Field(0, description="longest memory in steps that the gates begin with; 0: short ones")
    batch: PositiveInt = Field(64, description="sequences per step, all of them new")
    clip: float = Field(1.0, ge=0, allow_inf_nan=False, description="largest norm of the gradient; 0: no limit")
    steps: PositiveInt = Field(3000, description="updates of the weights")
    eval_every: PositiveInt = Field(250, description="steps between evaluations")

    @model_validator(mode="after")
    def _length(self) -> "ProbeConfig":
        if self.problem == "reber" and self.length is not None:
            raise ValueError(f"--length {self.length}: the grammar of reber decides how long a string is")
        if self.problem == "adding" and self.length == 1:
            raise ValueError("--length 1: adding needs two numbers, so at least 2 steps")
        return self
