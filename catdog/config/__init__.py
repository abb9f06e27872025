"""Settings of a run: one frozen tree, validated when it is created.

In: YAML, flags and presets as plain values. Out: a :class:`Config`, its identity, and the table
of models (:mod:`catdog.config.architectures`). Imports ``errors`` and ``redact``.
"""

from catdog.config.groups import (
    AugmentationSettings,
    ComputeSettings,
    DataSettings,
    FineTuneSettings,
    InputScale,
    ModelName,
    Precision,
    ScratchSettings,
    WeightsSettings,
)
from catdog.config.settings import Config, digest, merged

__all__ = [
    "AugmentationSettings",
    "ComputeSettings",
    "Config",
    "DataSettings",
    "FineTuneSettings",
    "InputScale",
    "ModelName",
    "Precision",
    "ScratchSettings",
    "WeightsSettings",
    "digest",
    "merged",
]
