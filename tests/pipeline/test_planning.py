"""From settings to trainings: what a sweep's choice and other seeds make of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from catdog.config import Config, FineTuneSettings
from catdog.data.prepare import PreparedSet
from catdog.models.registry import POOLED
from catdog.models.weights import RANDOM, Weights
from catdog.pipeline.planning import Plan
from catdog.presets import laptop
from catdog.runs import RunDirectory
from catdog.storage import Location
from catdog.transfer.features import FeatureSet


def plan(folder: Path, **changes: Any) -> Plan:
    root = Location.of(folder)
    config = laptop().model_copy(update={"storage": root.uri, "name": "run", **changes})
    weights = Weights((root / "w.npz").uri, "file", "abc", "0..1")
    dataset = PreparedSet(root / "set", {"format": 1, "image_size": 160, "contents": "c"})
    return Plan(config, RunDirectory.of(config), dataset, "float32", {"inception_v3": weights})


def stage(name: Any, **changes: Any) -> dict[str, Any]:
    return {"sweep": laptop().sweep.model_copy(update={"stage": name, **changes})}


def test_the_choice_of_a_sweep_of_fine_tuning_changes_what_was_swept(tmp_path: Path) -> None:
    point = {"learning_rate": 3e-4, "unfrozen_blocks": 4, "augmentation_strength": 0.5}
    chosen = replace(plan(tmp_path), best=point, swept="inception_v3")
    settings = chosen.settings("inception_v3")
    assert isinstance(settings, FineTuneSettings)
    before = chosen.config.fine_tune
    assert (settings.learning_rate, settings.unfrozen_blocks) == (3e-4, 4)
    assert settings.epochs == before.epochs
    assert settings.augmentation.zoom == pytest.approx(before.augmentation.zoom / 2)
    assert chosen.settings("resnet50v2").learning_rate == chosen.config.scratch.learning_rate


def test_the_choice_of_a_sweep_of_the_head_is_trained_as_it_was_tried(tmp_path: Path) -> None:
    made = plan(tmp_path, **stage("head", head_epochs=12))
    point = made.search("inception_v3").point(1)
    assert "augmentation_strength" not in point, "kept features are what they are"
    chosen = replace(made, best=point, swept="inception_v3")
    settings = chosen.settings("inception_v3")
    assert settings == made.tried("inception_v3", point)
    kept = FeatureSet(Location.of(tmp_path / "features"), {"views": 1})
    job = chosen.job("inception_v3", {POOLED: kept})
    assert (job.boundary, job.freeze_below, job.views) == (POOLED, POOLED, 1)
    assert job.features == kept.root.uri
    assert job.head is not None
    assert job.head.endswith("zero.npz")
    assert job.settings.epochs == 12


def test_a_training_belongs_to_what_is_in_the_photos_and_not_to_where_they_lie(
    tmp_path: Path,
) -> None:
    made = plan(tmp_path)
    facts = made.dataset.manifest
    elsewhere = PreparedSet(Location.of(tmp_path / "other"), facts | {"fingerprint": "listed anew"})
    others = PreparedSet(made.dataset.root, facts | {"contents": "other photos"})

    def names(dataset: PreparedSet) -> tuple[str, str]:
        of = replace(made, dataset=dataset)
        request = of.feature_request("inception_v3")
        return of.job("base_cnn", {}).identity, request.fingerprint(dataset, POOLED)

    assert names(elsewhere) == names(made.dataset)
    for one, other in zip(names(others), names(made.dataset), strict=True):
        assert one != other


def tuned(**changes: Any) -> FineTuneSettings:
    return laptop().fine_tune.model_copy(update=changes)


@pytest.mark.parametrize("blocks", [0, 2])
def test_a_training_takes_as_many_views_of_a_photo_as_are_kept(tmp_path: Path, blocks: int) -> None:
    made = plan(tmp_path, fine_tune=tuned(views=3, unfrozen_blocks=blocks))
    kept = FeatureSet(Location.of(tmp_path / "features"), {"views": 3})
    cut = made.boundary_of("inception_v3", made.settings("inception_v3"))
    job = made.job("inception_v3", {cut: kept})
    assert (job.boundary, job.views) == (cut, 3)
    assert made.feature_request("inception_v3").views == 3


def test_the_heads_of_a_sweep_take_the_views_that_are_kept(tmp_path: Path) -> None:
    off = laptop().augmentation.scaled(0)
    none = plan(tmp_path, fine_tune=tuned(views=4, augmentation=off))
    assert none.feature_request("inception_v3").views == 1, "there is nothing to vary"
    for given, taken in ((0, 1), (4, 4)):
        made = plan(tmp_path, **stage("head"), fine_tune=tuned(views=given))
        settings = made.tried("inception_v3", {"learning_rate": 0.1})
        assert isinstance(settings, FineTuneSettings)
        assert settings.views == taken


def test_what_is_frozen_is_computed_once_where_nothing_is_augmented(tmp_path: Path) -> None:
    off = laptop().augmentation.scaled(0)
    augmented, plain, whole = (
        plan(tmp_path, fine_tune=settings)
        for settings in (
            tuned(unfrozen_blocks=2),
            tuned(unfrozen_blocks=2, augmentation=off),
            tuned(unfrozen_blocks="all", augmentation=off),
        )
    )

    def cuts(of: Plan) -> set[str]:
        return of.kept_cuts("inception_v3", [of.settings("inception_v3")])

    assert cuts(augmented) == cuts(whole) == set()
    (cut,) = cuts(plain)
    kept = FeatureSet(Location.of(tmp_path / "features"), {"views": 1})
    job = plain.job("inception_v3", {cut: kept})
    assert (job.features, job.boundary, job.views) == (kept.root.uri, cut, 1)
    assert plain.kept_cuts("base_cnn", [plain.settings("base_cnn")]) == set()


def test_trials_without_augmentation_start_from_what_is_kept(tmp_path: Path) -> None:
    made = plan(tmp_path, **stage("finetune"))
    points = [{"unfrozen_blocks": 2, "augmentation_strength": strength} for strength in (0.0, 1.0)]
    still, moved = (made.tried("inception_v3", point) for point in points)
    (cut,) = made.kept_cuts("inception_v3", [still, moved])
    assert made.kept_cuts("inception_v3", [moved]) == set()
    kept = {cut: FeatureSet(Location.of(tmp_path / "features"), {"views": 1})}
    output = Location.of(tmp_path / "trial")
    jobs = [made.trial("inception_v3", kept, point, output) for point in points]
    assert [job.boundary for job in jobs] == [cut, "pixels"]


def test_the_first_point_is_the_run_as_it_is(tmp_path: Path) -> None:
    made = plan(tmp_path, **stage("finetune"))
    point = made.search("inception_v3").point(0)
    assert made.tried("inception_v3", point) == made.config.fine_tune
    scratch = made.search("resnet50v2").point(0)
    assert set(scratch) == {"learning_rate", "dropout", "weight_decay", "label_smoothing"}


def test_kept_rows_are_not_swept_in_strength(tmp_path: Path) -> None:
    off = laptop().augmentation.scaled(0)
    for settings in (tuned(views=2, unfrozen_blocks=2), tuned(augmentation=off)):
        made = plan(tmp_path, fine_tune=settings)
        assert "augmentation_strength" not in made.search("inception_v3").point(1)


def test_repeats_differ_in_seed_and_place_alone(tmp_path: Path) -> None:
    made = plan(tmp_path, seeds=3, seed=5)
    job = made.job("base_cnn", {})
    repeats = made.repeats(job)
    assert [repeat.seed for repeat in repeats] == [6, 7]
    assert repeats[0].output == (tmp_path / "run/models/base_cnn/seeds/6").as_posix()
    assert replace(repeats[0], seed=5, output=job.output, training=job.training) == job
    assert plan(tmp_path).repeats(job) == []


def test_more_seeds_go_on_with_the_same_run() -> None:
    config: Config = laptop()
    assert config.identity == config.model_copy(update={"seeds": 3}).identity


def test_repeats_are_told_under_names_of_their_own(tmp_path: Path) -> None:
    made = plan(tmp_path, seeds=3)
    repeats = made.repeats(made.job("base_cnn", {}))
    assert [job.title for job in repeats] == ["base_cnn seed 1", "base_cnn seed 2"]
    assert made.job("base_cnn", {}).title == "base_cnn"


def test_a_head_alone_is_the_probe(tmp_path: Path) -> None:
    made = plan(tmp_path, head_only=("inception_v3",))
    job = made.job("inception_v3", {})
    assert (job.phase, job.settings.epochs, job.freeze_below) == ("probe", 0, POOLED)
    assert job == made.probe_job("inception_v3")
    assert job.done != plan(tmp_path).job("inception_v3", {}).done
    assert made.in_order_of_cost()[0] == "inception_v3", "it takes seconds"
    assert made.probes_in_order() == ["inception_v3"]


def test_random_weights_are_not_fine_tuned(tmp_path: Path) -> None:
    made = plan(tmp_path)
    drawn = replace(made.weights["inception_v3"], origin=RANDOM)
    random = replace(made, weights={"inception_v3": drawn}, probed={"inception_v3": 0.9})
    assert random.job("inception_v3", {}).phase == "probe"
    assert random.swept_by_default() == "resnet50v2"
    assert replace(made, probed={"inception_v3": 0.6}).swept_by_default() == "inception_v3"
