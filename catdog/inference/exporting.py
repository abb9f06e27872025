"""Exports as people ask for them: find the model, write and prove, show it in the report."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from catdog import console, report
from catdog.errors import UserError
from catdog.inference.exports import export
from catdog.inference.finished import find_model, predictions
from catdog.inference.testphotos import photos_of
from catdog.storage import Location


def run_export(model: str, formats: Sequence[str]) -> None:
    """Export ``formats`` and say what each weighs and how near it is to the model.

    Raises:
        UserError: no such model, or its test photos are gone.
        RunFailed: an export answers otherwise than the model.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    chosen = find_model(model)
    if predictions(chosen.folder, "test") is None:
        raise UserError(f"{chosen.folder} has no test predictions to prove an export by")
    photos = photos_of(chosen.run)
    log = Path(tempfile.gettempdir()) / f"catdog-export-{os.getpid()}.log"
    with console.chatter_to(log):
        record = export(chosen, formats, photos, console.say)
    rows = [
        [
            name,
            str(chosen.folder / facts["path"]),
            console.size(facts["bytes"]),
            f"{facts['latency_ms']:.1f} ms",
            f"{facts['max_difference']:.1e}",
        ]
        for name, facts in record["formats"].items()
    ]
    console.table(["format", "where", "size", "one photo", "largest difference"], rows)
    console.say(str(_in_report(chosen.run)))


def _in_report(run: Location) -> Location:
    """The run's page with its exports; a report of several runs is left to who made it."""
    try:
        before = (run / "report.json").read_json()
    except FileNotFoundError:
        before = {}
    if before.get("other_runs"):
        console.say("the report compares several runs; jobs/report.py with all of them renews it")
        return run / "report.html"
    return report.build([run], price_per_hour=before.get("price_per_hour"))
