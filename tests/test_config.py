"""Settings: presets, flags over files over presets, and one line for a mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from catdog.config import PRESETS, Config
from catdog.errors import UserError
from catdog.flags import config_from, training_parser


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


def test_more_epochs_trials_or_workers_are_the_same_run() -> None:
    name = parsed().run_name
    assert parsed("--epochs", "50", "--trials", "9", "--workers", "1").run_name == name
    assert parsed("--seed", "1").run_name != name
    assert parsed("--data", "somewhere", "--preset", "sample").run_name != name


def test_weights_of_one_backbone_come_with_their_scale() -> None:
    config = parsed("--weights", "none", "--weights-for", "inception_v3=/w.h5,scale=0..1")
    assert config.weights_of("inception_v3").source == "/w.h5"
    assert config.weights_of("inception_v3").scale == "0..1"
    assert not config.weights_of("resnet50v2").pretrained


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
