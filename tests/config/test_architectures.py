"""The table of models: complete, and read by everything that lists them."""

from __future__ import annotations

from typing import get_args

from catdog.cli.flags import training_parser
from catdog.config import Config
from catdog.config.architectures import (
    BACKBONES,
    MODEL_NAMES,
    MODELS,
    InputScale,
)
from catdog.models.registry import SCALES
from catdog.presets import PRESETS
from catdog.report.wording import title


def test_every_name_has_a_row_in_the_order_of_reports() -> None:
    assert [name for name in MODELS if MODELS[name].blocks] == list(BACKBONES)
    assert get_args(InputScale) == tuple(SCALES)


def test_what_lists_models_reads_the_table() -> None:
    assert Config().models == MODEL_NAMES
    assert tuple(Config().weights) == BACKBONES
    shown = training_parser().format_help()
    for name in MODEL_NAMES:
        assert name in shown
        assert title(name) == MODELS[name].title


def test_every_preset_trains_all_models_at_sides_that_they_can_see() -> None:
    for preset in PRESETS.values():
        assert preset().models == MODEL_NAMES
    laptop = PRESETS["laptop"]()
    sides = {name: laptop.image_size_of(name) for name in MODEL_NAMES}
    assert sides == {
        "base_cnn": 128,
        "resnet50v2": 96,
        "inception_v3": 160,
        "efficientnet_lite0": 224,
    }
