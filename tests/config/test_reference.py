"""The reference of all settings, and the documents that are made from it."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from catdog.cli.settings import as_markdown, as_schema, as_text
from catdog.config import Config
from catdog.config.reference import groups
from catdog.presets import PRESETS

HOW = "run `make docs`"


def settings() -> dict[str, tuple[str, str, str]]:
    """Kind, default and description by path."""
    found = groups({name: preset() for name, preset in PRESETS.items()})
    return {
        each.path: (each.kind, each.default, each.description)
        for group in found
        for each in group.settings
    }


@pytest.mark.parametrize(
    "file, made", [("settings.md", as_markdown), ("settings.schema.json", as_schema)]
)
def test_the_documents_are_those_of_the_code(file: str, made, project: Path) -> None:
    assert (project / "docs" / file).read_text() == made(), HOW


def test_every_setting_is_listed_with_a_description() -> None:
    listed = settings()

    def leaves(tree: dict, path: str = "") -> set[str]:
        paths = set()
        for key, value in tree.items():
            where = f"{path}{key}"
            if where in ("weights", "model_image_size"):
                paths |= {name for name in listed if name.startswith(f"{where}.MODEL")}
            elif isinstance(value, dict):
                paths |= leaves(value, f"{where}.")
            else:
                paths.add(where)
        return paths

    assert set(listed) == leaves(Config().model_dump(mode="json"))
    assert {"weights.MODEL.source", "weights.MODEL.scale", "model_image_size.MODEL"} <= set(listed)
    assert all(len(description) > 10 for _, _, description in listed.values())


def test_types_bounds_and_defaults_by_preset() -> None:
    listed = settings()
    assert listed["data.image_size"][:2] == (
        "integer, 32 to 1024",
        "sample: 96; laptop: 224; cluster: 224",
    )
    assert listed["compute.precision"][:2] == ("auto | float32 | bfloat16", "auto")
    assert listed["scratch.ema_momentum"][0] == "number, above 0 and below 1 or null"
    assert listed["sweep.learning_rate"][0] == "[low, high]"
    assert listed["weights.MODEL.source"][1] == "imagenet"
    assert all(path in as_text() for path in listed)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_the_schema_accepts_what_a_run_writes_and_refuses_an_unknown_key(preset: str) -> None:
    schema = json.loads(as_schema())
    tree = yaml.safe_load(PRESETS[preset]().to_yaml())
    jsonschema.validate(tree, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tree | {"no_such": 1}, schema)
