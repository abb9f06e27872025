"""The settings that a mistyped path may have been meant for."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel


def setting_paths(settings: type[BaseModel], above: str = "") -> Iterator[str]:
    """``scratch.learning_rate`` and all others of ``settings``, groups after what is in them."""
    for name, field in settings.model_fields.items():
        path = f"{above}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from setting_paths(field.annotation, f"{path}.")
        yield path


def nearest_settings(path: str, known: Sequence[str], most: int = 3) -> list[str]:
    """Paths of ``known`` near to ``path``: as a whole, or by their last part or its initials.

    ``lr`` is near to every ``learning_rate``, ``scratch.lr`` to that of ``scratch``.
    """
    group, _, last = path.rpartition(".")
    as_deep = [one for one in known if one.count(".") == path.count(".")]
    whole = difflib.get_close_matches(path, as_deep, 1, 0.8)
    if whole:
        return whole
    lasts = {one.rpartition(".")[2] for one in known}
    named = {name for name in lasts if last in (name, _initials(name))}
    meant = named or set(difflib.get_close_matches(last, lasts, 1, 0.7))
    found = [one for one in known if one.rpartition(".")[2] in meant]
    beside = [one for one in found if group and one.rpartition(".")[0] == group]
    return (beside or found)[:most]


def full_path(location: Sequence[int | str], given: Any) -> str:
    """The path that was given, where ``location`` names the group that it begins with alone."""
    parts = [str(part) for part in location]
    while isinstance(given, Mapping) and len(given) == 1:
        ((key, given),) = given.items()
        parts.append(str(key))
    return ".".join(parts)


def _initials(name: str) -> str:
    return "".join(part[:1] for part in name.split("_"))
