"""The settings of a forecasting model: checked values, no behaviour, and no torch."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, FiniteFloat, NonNegativeInt, PositiveInt, model_validator

from ..settings import EpochsConfig

Share = Annotated[FiniteFloat, Field(ge=0)]
Quantile = Annotated[FiniteFloat, Field(gt=0, lt=1)]


class ForecastConfig(EpochsConfig):
    """Everything that decides a run of `cellwright train forecast`, next to the data."""

    task: ClassVar[str] = "forecast"
    about: ClassVar[str] = "Train a model that forecasts the next values of a series, with intervals."
    paths: ClassVar[tuple[str, ...]] = ("data",)
    shown: ClassVar[str] = "DATA"
    explained: ClassVar[str] = (
        "CSV, TSV or JSON Lines with a row per step in time: a column of times, and columns of numbers; several files "
        "are several series"
    )

    hidden: PositiveInt = Field(32, description="units per layer")
    data: tuple[str, ...] = ()
    target: tuple[str, ...] = Field((), description="a column to forecast; repeatable; the last column of numbers")
    time: str = Field("", description="the column of times; found by itself; row: there is none, rows are the steps")
    time_format: str = Field("", description="how times are written, for example %d.%m.%Y; not needed for 2024-01-31")
    series: str = Field("", description="the column that says which series a row belongs to")
    covariate: tuple[str, ...] = Field(
        (), description="a column of numbers to look at too, known up to now; repeatable; all: every other one"
    )
    known: tuple[str, ...] = Field((), description="the same, known for the future too; repeatable")
    calendar: bool = Field(True, description="look at the hour, the day of the week and the time of the year")
    window: PositiveInt | None = Field(None, description="steps to look at; else two seasons or two horizons")
    horizon: PositiveInt | None = Field(None, description="steps to forecast; else one season")
    season: PositiveInt | None = Field(
        None, description="steps after which things repeat; else by the step: 24 hours, 7 days, 12 months"
    )
    quantile: tuple[Quantile, ...] = Field((0.1, 0.5, 0.9), description="what to forecast; repeatable; 0.5 is there")
    log: bool = Field(False, description="work with the logarithm of the targets, where all swings grow with the level")
    fill: Literal["", "mean", "previous", "zero"] = Field(
        "", description="what stands for missing numbers, also where rows are missing"
    )
    rows: NonNegativeInt = Field(0, description="use the first so many rows of each series; 0: all")
    validation: Share = Field(0.15, description="part of each series for validation, after training; from 1 on: rows")
    test: Share = Field(0.15, description="part of each series for the test, at its end; from 1 on: rows")
    stride: PositiveInt = Field(1, description="steps between the forecasts of the test")

    batch: PositiveInt = Field(32, description="windows per step")
    epochs: PositiveInt = Field(20, description="how often every window is seen; at least 400 steps")
    eval_every: PositiveInt | None = Field(
        None, description="steps between evaluations; else twice per epoch or 40 in all"
    )
    lr: Annotated[FiniteFloat, Field(gt=0)] = Field(1e-3, description="learning rate of Adam")
    patience: NonNegativeInt = Field(8, description="stop after so many evaluations without improvement; 0: do not")

    @model_validator(mode="after")
    def _parts(self) -> "ForecastConfig":
        shares = [part for part in (self.validation, self.test) if part < 1]
        if sum(shares) >= 1:
            raise ValueError(f"--validation {self.validation} and --test {self.test} leave no data for training")
        for name in ("validation", "test"):
            part = getattr(self, name)
            if part >= 1 and part != int(part):
                raise ValueError(f"--{name} {part}: from 1 on it is a number of rows, expected a whole number")
        return self

    @property
    def quantiles(self) -> tuple[float, ...]:
        """Those that are forecast, in their order: the median is always there."""
        return tuple(sorted({*self.quantile, 0.5}))
