"""Reference of all settings: path, type, range, default and description of each.

Read from the JSON schema of :class:`Config`. :mod:`catdog.cli.settings` shows it with
``--help-settings`` and writes ``docs/settings.md``. The presets are passed in, as their room comes
after this one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from catdog.config.settings import Config

Tree = Mapping[str, Any]


class Setting(NamedTuple):
    """One setting.

    ``path`` is what ``--set`` takes, with ``MODEL`` for a model's name; ``kind`` its type or its
    choices, with bounds; ``default`` one value, or one for each preset.
    """

    path: str
    kind: str
    default: str
    description: str


class Group(NamedTuple):
    """Settings that belong together; ``path`` is empty for those at the top level."""

    path: str
    description: str
    settings: list[Setting]


def groups(presets: Mapping[str, Config]) -> Iterator[Group]:
    """All groups in the order of ``config.yaml``; those of the top level first."""
    schema = Config.model_json_schema()
    trees = {name: preset.model_dump(mode="json") for name, preset in presets.items()}
    yield from _groups("", schema, schema["$defs"], trees)


def _groups(path: str, node: Tree, defs: Tree, trees: Mapping[str, Any]) -> Iterator[Group]:
    """The group at ``node``, then the groups below it."""
    settings: list[Setting] = []
    below: list[tuple[str, Tree, Mapping[str, Any]]] = []
    for name, field in node["properties"].items():
        where = f"{path}.{name}" if path else name
        values = {preset: tree[name] for preset, tree in trees.items()}
        inner = _resolved(field, defs)
        entries = inner.get("additionalProperties")
        if "properties" in inner:
            below.append((where, {**inner, **field}, values))
        elif isinstance(entries, dict) and "properties" in (found := _resolved(entries, defs)):
            # By model: a group whose settings each have a value for every model.
            turned = {
                preset: {
                    key: {model: each[key] for model, each in tree.items()}
                    for key in found["properties"]
                }
                for preset, tree in values.items()
            }
            below.append((f"{where}.MODEL", found, turned))
        else:
            description = field["description"]
            if isinstance(entries, dict):
                where, inner = f"{where}.MODEL", _resolved(entries, defs)
            settings.append(Setting(where, _kind(inner, defs), _default(values), description))
    yield Group(path, _paragraph(node["description"]), settings)
    for where, group, defaults in below:
        yield from _groups(where, group, defs, defaults)


def _paragraph(docstring: str) -> str:
    return " ".join(docstring.replace("``", "`").split())


def _resolved(node: Tree, defs: Tree) -> Tree:
    reference = node.get("$ref")
    found: Tree = defs[reference.rpartition("/")[2]] if reference else node
    return found


def _kind(node: Tree, defs: Tree) -> str:
    """``integer, 32 to 1024``; ``auto | float32``; ``list of number``."""
    node = _resolved(node, defs)
    if "anyOf" in node:
        return " or ".join(_kind(option, defs) for option in node["anyOf"])
    if "enum" in node or "const" in node:
        return " | ".join(map(str, node.get("enum") or [node["const"]]))
    if "prefixItems" in node:
        return "[low, high]"
    if node["type"] == "array":
        return f"list of {_kind(node['items'], defs)}"
    return f"{node['type']}{_bounds(node)}"


def _bounds(node: Tree) -> str:
    low, above = node.get("minimum"), node.get("exclusiveMinimum")
    high, below = node.get("maximum"), node.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f", {low:g} to {high:g}"
    names = {"at least": low, "above": above, "at most": high, "below": below}
    parts = [
        f"{name} {value if isinstance(value, int) else f'{value:g}'}"
        for name, value in names.items()
        if value is not None
    ]
    return f", {' and '.join(parts)}" if parts else ""


def _default(values: Mapping[str, Any]) -> str:
    """One value, or ``sample: 96; laptop: 224; cluster: 224``."""
    shown = {preset: _shown(value) for preset, value in values.items()}
    if len(set(shown.values())) == 1 or shown == {preset: preset for preset in shown}:
        return next(iter(shown.values()))
    return "; ".join(f"{preset}: {value}" for preset, value in shown.items())


def _shown(value: Any) -> str:
    """As ``--set`` takes it; values by model as text."""
    if isinstance(value, Mapping):
        kinds = {_shown(each) for each in value.values()}
        if len(kinds) == 1 and len(value) > 1:
            return kinds.pop()
        return ", ".join(f"{key} {_shown(each)}" for key, each in value.items()) or "none given"
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
