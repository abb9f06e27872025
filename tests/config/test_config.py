"""Settings: presets, flags over files over presets, and one line for a mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from catdog.cli.flags import config_from, training_parser
from catdog.cluster.resources import Node, Resources, describe_hardware, plan_workers
from catdog.config import Config, WeightsSettings
from catdog.errors import UserError
from catdog.presets import PRESETS, laptop


def parsed(*arguments: str) -> Config:
    return config_from(training_parser().parse_args(list(arguments)))


@pytest.mark.parametrize("preset", list(PRESETS))
def test_a_config_file_gives_the_same_settings_back(preset: str, tmp_path: Path) -> None:
    config = PRESETS[preset]()
    file = tmp_path / "config.yaml"
    file.write_text(config.to_yaml())
    again = Config.from_tree(yaml.safe_load(file.read_text()), "config.yaml")
    assert again == config
    assert parsed("--config", str(file)).identity == config.identity


def test_a_config_file_is_not_mixed_with_what_a_preset_says_about_single_models(
    tmp_path: Path,
) -> None:
    config = parsed("--models", "resnet50v2", "--image-size", "32")
    assert PRESETS["sample"]().model_image_size, "the preset says something"
    file = tmp_path / "config.yaml"
    file.write_text(config.to_yaml())
    assert parsed("--config", str(file)).model_image_size == {}


def test_the_preset_follows_from_the_data() -> None:
    assert parsed().preset == "sample"
    assert parsed("--data", "somewhere").preset == "laptop"
    assert parsed("--data", "somewhere", "--preset", "cluster").preset == "cluster"


def test_augmentation_is_turned_off_by_a_word(tmp_path: Path) -> None:
    config = parsed("--set", "augmentation=none", "--set", "fine_tune.augmentation=none")
    assert config.augmentation.is_off
    assert config.fine_tune.augmentation.is_off
    assert not parsed().augmentation.is_off
    assert parsed("--set", "fine_tune.augmentation.zoom=0").fine_tune.augmentation.zoom == 0
    parts = ("--set", "augmentation=none", "--set", "augmentation.zoom=0.1")
    alone = parsed(*parts).augmentation
    assert alone == laptop().augmentation.scaled(0).model_copy(update={"zoom": 0.1})
    with pytest.raises(UserError, match="augmentation"):
        parsed("--set", "augmentation=off-ish")


def test_more_epochs_trials_or_workers_are_the_same_run() -> None:
    name = parsed().run_name
    assert parsed("--epochs", "50", "--trials", "9", "--workers", "1").run_name == name
    assert parsed("--seed", "1").run_name != name
    assert parsed("--data", "somewhere", "--preset", "sample").run_name != name


@pytest.mark.parametrize(
    "name", ["..", "a/../../b", "../b", "/b", "a//b", ".", "datasets", "x" * 300]
)
def test_a_name_is_a_folder_in_the_storage_that_no_other_files_have(name: str) -> None:
    with pytest.raises(UserError, match=r"^name: "):
        parsed("--name", name)


def test_a_name_may_have_folders_and_an_empty_one_is_none() -> None:
    assert parsed("--name", "photos/first").run_name == "photos/first"
    assert parsed("--name", "").run_name == parsed().run_name


def test_a_range_of_workers_is_read_and_a_number_ends_it(tmp_path: Path) -> None:
    config = parsed("--workers", "1:4")
    assert (config.compute.min_workers, config.compute.workers) == (1, 4)
    file = tmp_path / "config.yaml"
    file.write_text(config.to_yaml())
    again = parsed("--config", str(file))
    assert again.compute == config.compute
    assert parsed("--config", str(file), "--workers", "2").compute.min_workers is None


@pytest.mark.parametrize(
    "asked, cpus, expected, shown",
    [
        ("1", 2, (1, 2, None), "1 worker, 2 CPU cores each"),
        ("2", 4, (2, 2, None), "2 workers, 2 CPU cores each"),
        ("1:4", 3, (3, 1, (1, 4)), "1 to 4 workers, 1 CPU core each"),
        ("1:4", 8, (4, 2, (1, 4)), "1 to 4 workers, 2 CPU cores each"),
        ("2:2", 4, (2, 2, None), "2 workers, 2 CPU cores each"),
    ],
)
def test_workers_are_as_many_as_the_cluster_has_room_for(
    asked: str, cpus: int, expected: tuple[int, int, Any], shown: str
) -> None:
    resources = Resources((Node(cpus, 0),))
    workers = plan_workers(parsed("--workers", asked), resources)
    assert (workers.count, workers.cpus, workers.span) == expected
    assert str(workers) == shown


@pytest.mark.parametrize(
    "asked, node_cpus, expected",
    [
        ("3", (3, 3), (3, 1)),  # of two cores each, only two would fit
        ("2", (3, 3), (2, 3)),
        ("0", (0, 16, 16), (2, 16)),  # a head that takes no work is no node to train on
        ("3", (4, 2), (3, 2)),
    ],
)
def test_every_worker_fits_on_one_of_the_nodes(
    asked: str, node_cpus: tuple[int, ...], expected: tuple[int, int]
) -> None:
    resources = Resources(tuple(Node(cpus, 0) for cpus in node_cpus))
    workers = plan_workers(parsed("--workers", asked), resources)
    assert (workers.count, workers.cpus) == expected


def test_fewer_cores_than_the_least_workers_are_refused() -> None:
    resources = Resources((Node(2, 0),))
    with pytest.raises(UserError, match="--workers 3: this cluster has 2 CPU cores"):
        plan_workers(parsed("--workers", "3:4"), resources)


def test_workers_larger_than_any_node_are_refused() -> None:
    wide = ("--workers", "2", "--set", "compute.cpus_per_worker=3")
    assert plan_workers(parsed(*wide), Resources((Node(4, 0), Node(4, 0)))).count == 2
    with pytest.raises(UserError, match="2 with 3 CPU cores each: this cluster has room for 1"):
        plan_workers(parsed(*wide), Resources((Node(4, 0), Node(2, 0))))


def test_workers_with_a_gpu_get_cores_beside_one() -> None:
    mixed = Resources((*(4 * [Node(16, 0)]), *(2 * [Node(2, 1)]), Node(4, 4)))
    workers = plan_workers(parsed("--workers", "0"), mixed)
    assert (workers.count, workers.cpus, workers.use_gpu) == (6, 1, True)
    few = plan_workers(parsed("--workers", "3"), mixed)
    assert (few.count, few.cpus) == (3, 2)


def test_the_hardware_is_described_by_its_gpus() -> None:
    nodes = ({"CPU": 8, "GPU": 2, "accelerator_type:L4": 1}, {"CPU": 4, "GPU": 1}, {"CPU": 4})
    described = describe_hardware(Resources(tuple(map(Node.of, nodes))))
    assert described.gpus == ["2 × L4", "1 × GPU"]
    assert (described.cpus, described.nodes) == (16, 3)


def test_xla_is_refused_where_it_would_fail() -> None:
    cores, gpus = Resources((Node(4, 0),)), Resources((Node(4, 2),))
    with pytest.raises(UserError, match=r"compute\.xla: several"):
        plan_workers(parsed("--workers", "2", "--set", "compute.xla=true"), cores)
    assert plan_workers(parsed("--workers", "1", "--set", "compute.xla=true"), cores).count == 1
    assert plan_workers(parsed("--workers", "2", "--set", "compute.xla=true"), gpus).count == 2


def test_weights_of_one_backbone_come_with_their_scale() -> None:
    config = parsed("--weights", "none", "--weights-for", "inception_v3=/w.h5,scale=0..1")
    assert config.weights_of("inception_v3").source == "/w.h5"
    assert config.weights_of("inception_v3").scale == "0..1"
    assert not config.weights_of("resnet50v2").pretrained


def test_efficientnet_starts_from_its_package_with_the_scale_of_its_weights() -> None:
    name, scale = "efficientnet_lite0", "-127/128..1"
    for preset in PRESETS.values():
        assert name in preset().models
        assert preset().weights_of(name) == WeightsSettings(source="imagenet", scale=scale)
    assert parsed("--weights", "none").weights_of(name) == WeightsSettings(
        source="none", scale=scale
    )
    own = parsed("--weights-for", f"{name}=/w.h5").weights_of(name)
    assert (own.source, own.scale) == ("/w.h5", scale)
    assert parsed("--weights-for", f"{name}=/w.h5,scale=0..1").weights_of(name).scale == "0..1"
    assert parsed("--weights-for", "resnet50v2=/w.h5").weights_of("resnet50v2").scale == "-1..1"


def test_bfloat16_is_left_out_where_a_model_is_slower_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("catdog.cluster.resources._cpu_has_bfloat16", lambda: True)
    cores, gpus = Resources((Node(4, 0),)), Resources((Node(4, 2),))

    def policies(resources: Resources, *arguments: str) -> tuple[str, str]:
        workers = plan_workers(parsed(*arguments), resources)
        return workers.precision_of("inception_v3"), workers.precision_of("efficientnet_lite0")

    mixed = "mixed_bfloat16"
    assert policies(cores) == (mixed, "float32")
    assert policies(gpus) == (mixed, mixed)
    assert policies(cores, "--set", "compute.precision=bfloat16") == (mixed, mixed)
    assert policies(cores, "--set", "compute.precision=float32") == ("float32", "float32")


def test_any_setting_can_be_set_by_its_path() -> None:
    config = parsed("--set", "scratch.learning_rate=5e-4", "--set", "fine_tune.unfrozen_blocks=all")
    assert config.scratch.learning_rate == 5e-4
    assert config.fine_tune.unfrozen_blocks == "all"


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--set", "scratch.rate=1"], "scratch.rate: there is no such setting"),
        (["--set", "scratch"], "write KEY=VALUE"),
        (["--image-size", "95"], "too small for base_cnn, which needs at least 96"),
        (["--models", "inception_v3", "--image-size", "74"], "needs at least 75"),
        (["--models", "vgg"], "invalid choice: 'vgg'"),
        (["--weights-for", "vgg=/w.h5"], "no backbone 'vgg'"),
        (["--weights-for", "inception_v3=/w.h5,scale=7"], "inception_v3.scale"),
        (["--config", "/no/such.yaml"], "there is no file /no/such.yaml"),
        (["--models", "base_cnn", "--tune-model", "resnet50v2"], "not among the models"),
        (["--batch-size", "0"], "batch_size"),
        (["--workers", "3:1"], "'3:1': MIN is 1 or more, and MAX no less"),
        (["--workers", "0:2"], "'0:2': MIN is 1 or more, and MAX no less"),
        (["--workers", "a:b"], "'a:b' is neither a number nor MIN:MAX"),
        (["--set", "compute.min_workers=3"], "min_workers 3 is more than workers 2"),
        (["--unknown"], "unrecognized arguments: --unknown"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(arguments: list[str], expected: str) -> None:
    with pytest.raises(UserError) as caught:
        parsed(*arguments)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_config_file_with_an_unknown_key_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("scratch: {epohcs: 3}\n")
    with pytest.raises(UserError, match=r"mine\.yaml: scratch\.epohcs: there is no such setting"):
        parsed("--config", str(file))
