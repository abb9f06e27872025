"""Where a run is tracked, a group of :class:`catdog.config.Config`; no part of a run's identity."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Tracker = Literal["mlflow"]


class TrackingSettings(BaseModel):
    """Nothing is tracked unless ``to`` says where."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    to: Tracker | None = None
    uri: str | None = Field(None, description="of the server; none: MLFLOW_TRACKING_URI")
    experiment: str = Field("catdog", min_length=1)
