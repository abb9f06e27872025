"""The reference of all settings as text, as Markdown and as a JSON schema.

    python -m catdog.cli.settings FOLDER

writes ``settings.md`` and ``settings.schema.json`` into FOLDER; ``make docs`` does so for
``docs/``. ``--help-settings`` of a command prints the text.
"""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path

from catdog.config import Config
from catdog.config.reference import Group, groups
from catdog.presets import PRESETS

INTRODUCTION = """\
# Settings

Every setting of a run, made from the code by `make docs`. `python jobs/train.py --help-settings` \
prints the same list.

- On the command line: `--set data.image_size=128`, as often as needed. `null` is written as `null`.
- In a file for `--config`: YAML with the same paths as nested keys. Each run writes its own \
settings to `config.yaml`; [settings.schema.json](settings.schema.json) lets an editor check such \
a file.
- Order: a flag or `--set` overrides the file, and the file overrides the preset. Defaults that \
differ between presets are listed by preset.
- `MODEL` stands for a model's name, for example `weights.inception_v3.source`.
- An unknown setting is an error."""


def as_text() -> str:
    """The reference for a terminal."""
    parts = []
    for group in _groups():
        if group.path:
            parts.append(f"{group.path}: {group.description}")
        for setting in group.settings:
            head = f"  {setting.path}  ({setting.kind})  default: {setting.default}"
            indent = " " * 6
            body = textwrap.wrap(
                setting.description, 92, initial_indent=indent, subsequent_indent=indent
            )
            parts.append("\n".join([head, *body]))
    return "\n\n".join(parts)


def as_markdown() -> str:
    """``docs/settings.md``: a table for each group."""
    parts = [INTRODUCTION]
    for group in _groups():
        parts.append(f"## `{group.path}`" if group.path else "## Top level")
        parts.append(group.description)
        rows = ["| setting | type | default | what it does |", "|---|---|---|---|"]
        for each in group.settings:
            cells = [f"`{each.path}`", each.kind, each.default, each.description]
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts) + "\n"


def as_schema() -> str:
    """``docs/settings.schema.json``: what a file for ``--config`` may hold."""
    return json.dumps(Config.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


def main(folder: Path) -> None:
    (folder / "settings.md").write_text(as_markdown())
    (folder / "settings.schema.json").write_text(as_schema())


def _groups() -> list[Group]:
    return list(groups({name: preset() for name, preset in PRESETS.items()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
