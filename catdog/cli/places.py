"""Where runs are kept if nobody says, also within a Ray job."""

from __future__ import annotations

import os
from pathlib import Path

from catdog.errors import UserError


def _in_a_ray_job() -> bool:
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def refuse_the_job_cache(storage: str) -> None:
    if _in_a_ray_job() and "://" not in storage and not os.path.isabs(os.path.expanduser(storage)):
        raise UserError(
            f"--storage {storage}: in a Ray job this would be in the job's own folder, which Ray "
            "deletes; give an absolute path or s3://…"
        )


def default_storage() -> str:
    """``runs`` beside the project; under ``ray job submit`` its folder is a cache, so the home."""
    if _in_a_ray_job():
        return str(Path.home() / "catdog-runs")
    project = Path(__file__).resolve().parents[2]
    return str(project / "runs") if (project / "pyproject.toml").exists() else "runs"
