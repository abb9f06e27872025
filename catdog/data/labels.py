"""Labels from the names of files and folders. Nothing is guessed."""

from __future__ import annotations

import re

CLASSES = ("cat", "dog")
#: The label of a file that says neither, or both.
UNKNOWN = -1

_NAME = re.compile(r"(cat|dog)s?(?![a-z])")
_LITTER = frozenset({".ds_store", "thumbs.db", "desktop.ini", ".directory", "ehthumbs.db"})


def label_of(path: str) -> int:
    """0 (cat), 1 (dog) or :data:`UNKNOWN` for a path below the source, ``/`` between its parts.

    A file is told by the beginning of its name (``cat.0.jpg``, ``Dogs_12.png``), a folder by its
    whole name (``Cat``, ``dogs``), in any case. If they disagree the file is unknown.
    """
    *folders, name = path.lower().split("/")
    found = {folder.strip().removesuffix("s") for folder in folders} & set(CLASSES)
    if match := _NAME.match(name):
        found |= set(_NAME.findall(name)) if "." in name[match.end() :] else {match[1]}
    return CLASSES.index(found.pop()) if len(found) == 1 else UNKNOWN


def label_named(value: object) -> int:
    """The label that a table gives: ``cat``, ``Dogs``, 0, ``1``; anything else is unknown."""
    text = str(value).strip().lower().removesuffix(".0")
    if text in ("0", "1"):
        return int(text)
    singular = text.removesuffix("s")
    return CLASSES.index(singular) if singular in CLASSES else UNKNOWN


def is_litter(path: str) -> bool:
    """Files that an operating system leaves behind; nobody means them as photos."""
    *folders, name = path.lower().split("/")
    return name in _LITTER or name.startswith("._") or "__macosx" in folders
