"""What is refused before anything is started."""

from __future__ import annotations

from catdog.cluster.workers import Workers
from catdog.data.prepare import Survey
from catdog.pipeline.preflight import estimate_seconds, plan_lines
from catdog.presets import laptop

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


def test_a_sweep_of_the_head_takes_no_time_of_trials_and_fine_tunes_nothing() -> None:
    base = laptop().model_copy(update={"models": ("efficientnet_lite0",)})
    heads = base.model_copy(update={"sweep": base.sweep.model_copy(update={"stage": "head"})})
    none = base.model_copy(update={"fine_tune": base.fine_tune.model_copy(update={"epochs": 0})})
    none = none.model_copy(update={"sweep": base.sweep.model_copy(update={"trials": 0})})
    assert estimate_seconds(heads, SEEN, WORKERS) == estimate_seconds(none, SEEN, WORKERS)
