"""The run directory: its paths, its records, its lease; what workers tell of a run.

In: a :class:`~catdog.config.Config` and events. Out: ``run.json``, ``config.yaml``,
``events.jsonl`` and the lease; what a storage holds, how far a run is, and what may be removed.
Imports ``config``, ``errors`` and ``storage``.
"""

from catdog.runs.directory import RunDirectory, TrainingId, asked
from catdog.runs.events import Events, now
from catdog.runs.leases import lease

__all__ = ["Events", "RunDirectory", "TrainingId", "asked", "lease", "now"]
