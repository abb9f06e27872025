"""Settings of a hyperparameter sweep: the group ``sweep`` of :class:`catdog.config.Config`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from catdog.config.architectures import Backbone

SweepStage = Literal["head", "finetune"]
SearchMethod = Literal["random", "grid", "tpe"]

Blocks = Annotated[int, Field(ge=0)] | Literal["all"]
Dropout = Annotated[float, Field(ge=0, lt=1)]
Smoothing = Annotated[float, Field(ge=0, lt=0.5)]
Strength = Annotated[float, Field(ge=0, le=10)]


class SweepSettings(BaseModel):
    """What a sweep tries. Ranges are drawn log-uniformly, lists evenly; a list of one is fixed.

    ``finetune``: trials are Ray Train runs, ASHA stops poor ones on each epoch's validation
    accuracy. ``head``: the head alone is fitted on kept features, once for each of six penalties,
    in seconds; all backbones with weights end with it, and no other setting counts but ``model``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: SweepStage = Field(
        "finetune", description="what a trial trains: the head alone, or a fine-tuning"
    )
    search: SearchMethod = Field(
        "random", description="how points are chosen; tpe needs the extra tpe"
    )
    trials: int = Field(3, ge=0, description="number of trials; 0: no sweep")
    model: Backbone | None = Field(
        None, description="the model that is swept; null: the one with the best probe"
    )
    epochs: int = Field(2, ge=1, description="epochs of a trial of fine-tuning")
    grace_epochs: int = Field(1, ge=1, description="ASHA stops no trial before this many epochs")
    reduction_factor: int = Field(
        2, ge=2, description="at each of its steps ASHA keeps one trial of this many"
    )
    grid_points: int = Field(3, ge=2, description="how many values a range has in a grid")
    learning_rate: tuple[float, float] = Field(
        (3e-5, 1e-3), description="range of the peak rate of fine-tuning"
    )
    unfrozen_blocks: tuple[Blocks, ...] = Field(
        (1, 2, 4), min_length=1, description="values of fine_tune.unfrozen_blocks"
    )
    dropout: tuple[Dropout, ...] = Field(
        (0.0, 0.2, 0.4), min_length=1, description="values of dropout"
    )
    weight_decay: tuple[float, float] = Field((1e-4, 1e-1), description="range of weight decay")
    label_smoothing: tuple[Smoothing, ...] = Field(
        (0.0, 0.05, 0.1), min_length=1, description="values of label smoothing"
    )
    augmentation_strength: tuple[Strength, ...] = Field(
        (0.5, 1.0, 1.5), min_length=1, description="factors on all of fine_tune.augmentation"
    )

    @field_validator("learning_rate", "weight_decay")
    @classmethod
    def _is_a_range(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1]:
            raise ValueError("a range is [low, high] with 0 < low <= high")
        return value
