"""What is refused before anything is started."""

from __future__ import annotations

from typing import Any

import pytest

from catdog.config import Config
from catdog.errors import UserError
from catdog.pipeline.preflight import check_kept_views
from catdog.presets import laptop


def config(views: int, blocks: Any, **sweep: Any) -> Config:
    base = laptop()
    fine_tune = base.fine_tune.model_copy(update={"views": views, "unfrozen_blocks": blocks})
    swept = base.sweep.model_copy(update={"trials": 0, **sweep})
    return base.model_copy(update={"fine_tune": fine_tune, "sweep": swept})


@pytest.mark.parametrize("blocks", ["all", 5, 40])
def test_views_of_a_network_without_a_frozen_part_are_refused(blocks: Any) -> None:
    with pytest.raises(UserError, match="leaves nothing frozen in resnet50v2"):
        check_kept_views(config(2, blocks), "resnet50v2")


def test_the_same_in_the_search_space_of_a_sweep_is_refused() -> None:
    swept = config(2, 1, trials=3, unfrozen_blocks=(4, "all"))
    with pytest.raises(UserError, match=r"sweep\.unfrozen_blocks all"):
        check_kept_views(swept, "resnet50v2")
    check_kept_views(config(2, 1, trials=0, unfrozen_blocks=(4, "all")), "resnet50v2")


def test_a_sweep_of_the_head_leaves_all_frozen_and_may_keep_views() -> None:
    check_kept_views(config(2, "all", trials=3, stage="head"), "resnet50v2")


def test_views_with_a_frozen_part_and_pixels_without_views_are_fine() -> None:
    check_kept_views(config(2, 4), "resnet50v2")
    check_kept_views(config(0, "all"), "resnet50v2")
    check_kept_views(config(2, "all"), "base_cnn")


def test_a_backbone_from_scratch_has_no_views() -> None:
    base = config(2, "all")
    none = base.weights["resnet50v2"].model_copy(update={"source": "none"})
    scratch = base.model_copy(update={"weights": {"resnet50v2": none}})
    check_kept_views(scratch, "resnet50v2")
