"""The data stage alone, and what it says about the files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from catdog import console
from catdog.cluster.connection import connected
from catdog.config import Config
from catdog.data.checks import Outcome, UnusablePhotos
from catdog.data.prepare import PreparedSet, prepare
from catdog.errors import UserError
from catdog.storage import Location
from catdog.storage.access import check_readable, check_writable

#: The stage in words.
WHAT = "read, check, split and decode the photos"


def run_preparation(config: Config, numbers: Location | None = None) -> PreparedSet:
    """Prepare the photos of ``config``, say what became of them, and write it to ``numbers``.

    Raises:
        UserError: something given cannot be used; where the photos are too few or too bad,
            ``numbers`` is written before.
    """
    check_readable(config.storage, "--storage")
    if config.data.source is not None:
        check_readable(config.data.source, "--data")
    check_writable(config.storage, "--storage")
    if numbers is not None:
        _check_file(numbers)
    log = Path(tempfile.gettempdir()) / f"catdog-{os.getuid()}-prepare.log"
    try:
        with console.chatter_to(log), connected():
            console.stage("data", WHAT)
            dataset = prepared(config, Location.of(config.storage))
    except UnusablePhotos as error:
        account = error.outcome.account() | {"dataset": None}
        console.say(account_line(account))
        if numbers is not None:
            numbers.write_json(account)
        raise
    outcome = Outcome.of_tables(dataset.manifest, dataset.photos(), dataset.rejected())
    account = outcome.account() | {"dataset": str(dataset.root)}
    for line in account_lines(account):
        console.say(line)
    if numbers is not None:
        numbers.write_json(account)
    return dataset


def _check_file(numbers: Location) -> None:
    """Before anything takes time."""
    check_writable(numbers.parent.uri, "--json")
    if numbers.is_dir():
        raise UserError(f"--json {numbers} is a folder; give a file")
    if numbers.is_local:
        folders = numbers.local_path.parents
        if not os.access(next(each for each in folders if each.exists()), os.W_OK):
            raise UserError(f"--json {numbers}: no permission to write there")


def prepared(config: Config, storage: Location, owner: str | None = None) -> PreparedSet:
    """The prepared set of ``config``, with a bar while it is made. Ray must be initialised."""
    with console.progress("photos", 1.0) as advance:
        return prepare(config.data, storage, config.seed, console.counted(advance), owner=owner)


def account_line(account: Mapping[str, Any]) -> str:
    """``486 files, 480 kept; 2 held back as …; rejected: 1 empty, 5 duplicate``"""
    parts = [f"{account['files']} files, {account['kept']} kept"]
    if account["held_back"]:
        parts.append(f"{account['held_back']} held back as near-duplicates of test photos")
    rejected = ", ".join(f"{count} {reason}" for reason, count in account["rejected"].items())
    if rejected:
        parts.append(f"rejected: {rejected}")
    return "; ".join(parts)


def account_lines(account: Mapping[str, Any]) -> list[str]:
    """The account, then each split by class."""
    splits = [
        f"{split}: {classes['cat']} cats, {classes['dog']} dogs"
        for split, classes in account["splits"].items()
    ]
    return [account_line(account), *splits]
