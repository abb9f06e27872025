"""What is refused before anything is started."""

from __future__ import annotations

from typing import Any

import pytest

from catdog.cluster.workers import Workers
from catdog.config import Config
from catdog.data.prepare import Survey
from catdog.errors import UserError
from catdog.pipeline.preflight import check_kept_views, estimate_seconds, plan_lines
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


#: Of 700 photos.
SEEN = Survey("photos", False, 700, {"cat": 350, "dog": 350}, 10**7, 10**8, None)
WORKERS = Workers(2, 1, False, "float32")


def test_every_value_of_the_plan_begins_in_the_same_column() -> None:
    lines = plan_lines(laptop(), SEEN, WORKERS, {})
    assert any(line.startswith("efficientnet_lite0  ") for line in lines)
    assert {len(line) - len(line.split(maxsplit=1)[1]) for line in lines} == {20}


def test_the_plan_says_which_models_more_seeds_train_again() -> None:
    config = laptop().model_copy(update={"seeds": 3})
    lines = plan_lines(config, SEEN, WORKERS, {"inception_v3": "no network"})
    (seeds,) = [line.split(maxsplit=1)[1] for line in lines if line.startswith("seeds")]
    assert seeds == "3: base_cnn, resnet50v2, efficientnet_lite0"
    heads = config.model_copy(update={"models": ("inception_v3",)})
    lacking = {"inception_v3": "no network"}
    assert any("no model is repeated" in line for line in plan_lines(heads, SEEN, WORKERS, lacking))
    assert not any(line.startswith("seeds") for line in plan_lines(laptop(), SEEN, WORKERS, {}))


def test_more_seeds_take_more_time_and_heads_on_frozen_features_do_not() -> None:
    def seconds(models: tuple[str, ...], seeds: int) -> float:
        update = {"models": models, "seeds": seeds}
        config = laptop().model_copy(update=update)
        return estimate_seconds(config, SEEN, WORKERS, ["resnet50v2"])

    assert 2.5 < seconds(("base_cnn",), 3) / seconds(("base_cnn",), 1) < 3
    assert seconds(("resnet50v2",), 3) == seconds(("resnet50v2",), 1)
