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


def plan(folder: Path, probed: Any = None, **changes: Any) -> Plan:
    root = Location.of(folder)
    config = laptop().model_copy(update={"storage": root.uri, "name": "run", **changes})
    weights = Weights((root / "w.npz").uri, "file", "abc", "0..1")
    dataset = PreparedSet(root / "set", {"format": 1, "image_size": 160, "contents": "c"})
    return Plan(
        config,
        RunDirectory.of(config),
        dataset,
        "float32",
        {"inception_v3": weights},
        probed=probed or {},
    )


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


def test_a_sweep_of_the_head_ends_every_backbone_with_its_probe(tmp_path: Path) -> None:
    made = plan(tmp_path, **stage("head"), probed={"inception_v3": 0.9})
    assert made.swept_by_default() == "inception_v3"
    chosen = replace(made, best={"C": 0.004}, swept="inception_v3")
    assert chosen.tried("inception_v3", {"C": 0.004}) == chosen.settings("inception_v3")
    assert chosen.job("inception_v3", {}) == made.probe_job("inception_v3")
    assert not plan(tmp_path, **stage("head", trials=0)).is_head_alone("inception_v3")


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
    kept = FeatureSet(Location.of(tmp_path / "features"), {})
    job = plain.job("inception_v3", {cut: kept})
    assert (job.features, job.boundary) == (kept.root.uri, cut)
    assert plain.kept_cuts("base_cnn", [plain.settings("base_cnn")]) == set()


def test_trials_without_augmentation_start_from_what_is_kept(tmp_path: Path) -> None:
    made = plan(tmp_path, **stage("finetune"))
    points = [{"unfrozen_blocks": 2, "augmentation_strength": strength} for strength in (0.0, 1.0)]
    still, moved = (made.tried("inception_v3", point) for point in points)
    (cut,) = made.kept_cuts("inception_v3", [still, moved])
    assert made.kept_cuts("inception_v3", [moved]) == set()
    kept = {cut: FeatureSet(Location.of(tmp_path / "features"), {})}
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
    made = plan(tmp_path, fine_tune=tuned(augmentation=laptop().augmentation.scaled(0)))
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
