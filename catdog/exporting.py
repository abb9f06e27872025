"""Exports as people ask for them: find the model, write and prove, show it in the report."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from catdog import console, report
from catdog.errors import UserError
from catdog.evaluation.exports import export
from catdog.evaluation.finished import find_model, predictions
from catdog.evaluation.testphotos import photos_of
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
    run = Location.of(os.path.dirname(os.path.dirname(chosen.folder.uri)))
    photos = photos_of(run)
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
    console.say(str(report.build([run])))
