"""Settings of experiment tracking: the group ``tracking`` of :class:`catdog.config.Config`.

They are no part of a run's identity: a run can be tracked elsewhere when it is continued.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Tracker = Literal["mlflow"]


class TrackingSettings(BaseModel):
    """Where settings, epochs and results are sent beside the run directory."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    to: Tracker | None = Field(None, description="the tracking server's kind; null: no tracking")
    uri: str | None = Field(
        None, description="the server's address; null: the variable MLFLOW_TRACKING_URI"
    )
    experiment: str = Field("catdog", min_length=1, description="name of MLflow's experiment")
