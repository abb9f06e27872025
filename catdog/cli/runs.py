"""The runs of a storage: what there is, how far one is, and what may be removed.

    catdog runs list [--storage DIR|URI]
    catdog runs status RUN [--storage DIR|URI]
    catdog runs prune [--storage DIR|URI] [--older-than DAYS] [--yes]

RUN is a name below the storage, or a path or URI. Nothing is removed without --yes.
"""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from catdog import console
from catdog.cli.parsing import OneLineParser, program
from catdog.cli.places import default_storage
from catdog.errors import UserError, did_you_mean, nearest

if TYPE_CHECKING:
    from catdog.runs.inventory import StoredRun
    from catdog.storage import Location


def main(arguments: list[str]) -> None:
    options = parser().parse_args(arguments)
    # After parsing, so that --help answers at once.
    from catdog.storage import Location
    from catdog.storage.access import check_readable

    given = options.storage or default_storage()
    check_readable(given, "--storage")
    storage = Location.of(given)
    console.doing("reading the storage")
    {"list": _list, "status": _status, "prune": _prune}[options.action](storage, options)


def parser() -> argparse.ArgumentParser:
    assert __doc__ is not None
    made = OneLineParser(
        prog=program("runs"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    actions = made.add_subparsers(dest="action", metavar="list|status|prune", required=True)
    listing = actions.add_parser("list", help="name, status, models, best, size and age of each")
    status = actions.add_parser("status", help="how far a run is, also one of another terminal")
    status.add_argument("run", metavar="RUN", help="its name below the storage, a path or URI")
    prune = actions.add_parser("prune", help="what no run uses, and runs that came to nothing")
    prune.add_argument(
        "--older-than",
        type=_days,
        default=30.0,
        metavar="DAYS",
        help="failed and interrupted runs that nothing was written to for longer (default: 30)",
    )
    prune.add_argument("--yes", action="store_true", help="remove them; without it they are shown")
    for each in (listing, status, prune):
        each.add_argument(
            "--storage", metavar="DIR|URI", help="where the runs are (default: as of train)"
        )
    return made


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = math.nan
    if not (math.isfinite(days) and days >= 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days")
    return days


def _list(storage: Location, options: argparse.Namespace) -> None:
    from catdog.runs.inventory import runs_in

    runs = runs_in(storage)
    if not runs:
        console.say(f"there are no runs in {storage}")
        return
    columns = ["run", "status", "models", "best on test photos", "size", "age"]
    console.table(columns, [_row(run) for run in runs])


def _row(run: StoredRun) -> list[str]:
    best = run.best()
    shown = "–" if best is None else f"{best[1]:.3f} {best[0]}"
    models = ", ".join(run.models()) or "–"
    return [run.name, run.state, models, shown, console.size(run.bytes), _age(run)]


def _age(run: StoredRun) -> str:
    from datetime import UTC, datetime

    return _since((datetime.now(UTC) - run.changed).total_seconds())


def _since(seconds: float) -> str:
    """``40 s``, ``12 min``, ``5 h``, ``3 d``: since something was written last."""
    for limit, unit, length in ((120, "s", 1), (7200, "min", 60), (172800, "h", 3600)):
        if seconds < limit:
            return f"{max(0, seconds) / length:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def _status(storage: Location, options: argparse.Namespace) -> None:
    from catdog.runs.progress import progress_of

    run = _found(storage, options.run)
    progress = progress_of(run)
    facts = [("run", str(run.root)), ("status", progress.state)]
    if progress.stage and progress.state != "finished":
        facts.append(("stage", progress.stage))
    if progress.model:
        facts.append(("model", progress.model))
    if progress.epoch:
        facts.append(("epoch", f"{progress.epoch[0]}/{progress.epoch[1]}"))
    if progress.trials:
        facts.append(("trials", f"{progress.trials[0]}/{progress.trials[1]}"))
    if progress.left_s is not None:
        facts.append(("left", f"about {console.duration(progress.left_s)} of this training"))
    if progress.said and progress.age_s is not None:
        facts.append(("last", f"{progress.said}, {_since(progress.age_s)} ago"))
    if run.record.get("error"):
        facts.append(("error", str(run.record["error"])))
    best = run.best()
    if best is not None:
        facts.append(("best", f"{best[0]}, test accuracy {best[1]:.3f}"))
        facts.append(("report", str(run.root / "report.html")))
    for key, value in facts:
        console.say(f"{key:8}{value}")


def _found(storage: Location, given: str) -> StoredRun:
    """The run that ``given`` names.

    Raises:
        UserError: there is none.
    """
    from catdog.runs.inventory import runs_in, stored_run
    from catdog.storage import Location

    places = [Location.of(given)] if "://" in given else [storage / given, Location.of(given)]
    for place in places:
        if run := stored_run(place):
            return run
    names = [run.name for run in runs_in(storage)]
    hint = did_you_mean(nearest(given, names)) or f"; there are {', '.join(names) or 'none'}"
    raise UserError(f"there is no run {given} in {storage}{hint}")


def _prune(storage: Location, options: argparse.Namespace) -> None:
    from catdog.runs import pruning

    planned = pruning.plan(storage, options.older_than)
    for line in planned.staying:
        console.say(line)
    if not planned.removable:
        console.say(f"there is nothing to remove in {storage}")
        return
    rows = [[i.name, i.kind, i.why, console.size(i.bytes)] for i in planned.removable]
    console.table(["what", "kind", "why", "size"], rows)
    total = console.size(sum(item.bytes for item in planned.removable))
    if not options.yes:
        console.say(f"{total} in all; nothing is removed without --yes")
        return
    console.doing("removing")
    gone = list(pruning.remove(planned, storage, console.say))
    removed = console.size(sum(item.bytes for item in gone))
    console.say(f"removed {len(gone)} of {len(planned.removable)}: {removed}")
