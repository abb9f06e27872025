"""The command line of the jobs: flags over a config file over a preset.

argparse rather than a generator of flags: three-state switches (``--use-gpu``, ``--no-use-gpu``,
unset), one-line errors, and ``--help`` without importing anything heavy.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from typing import Any

import yaml

from catdog.cli.parsing import OneLineParser, at_least_one, program, workers_range
from catdog.cli.places import default_storage, refuse_the_job_cache
from catdog.cli.settings import as_text
from catdog.config import AugmentationSettings, Config, merged
from catdog.config.architectures import BACKBONES, MODEL_NAMES, MODELS
from catdog.config.spelling import nearest_settings, setting_paths
from catdog.errors import UserError, did_you_mean, nearest
from catdog.presets import PRESETS, changed
from catdog.storage import Location

IMAGE_SIZE = "side of the pictures in pixels"


class SettingsParser(OneLineParser):
    """The parser of commands with ``--set``: a flag that is none may be a setting."""

    def near_flags(self, flag: str) -> list[str]:
        paths = list(setting_paths(Config))
        asked = flag.removeprefix("--").replace("-", "_")
        return super().near_flags(flag) or [
            f"--set {path}=…" for path in nearest_settings(asked, paths)
        ]


def training_parser() -> argparse.ArgumentParser:
    parser = SettingsParser(
        prog=program("train"),
        description="Train the cat/dog classifiers on Ray and compare them. Without --data it uses "
        "built-in drawings. The same command again continues an interrupted run.",
        allow_abbrev=False,
    )
    where = _where_group(parser)
    where.add_argument("--dry-run", action="store_true", help="check everything, print the plan")
    model = parser.add_argument_group("models")
    model.add_argument(
        "--models", nargs="+", choices=MODEL_NAMES, metavar="MODEL", help=", ".join(MODEL_NAMES)
    )
    _add_weights(model)
    how = parser.add_argument_group("training")
    how.add_argument("--epochs", type=int, metavar="N", help="of training from scratch")
    how.add_argument(
        "--fine-tune-epochs", type=int, metavar="N", help="of fine-tuning; 0: heads alone"
    )
    how.add_argument(
        "--seeds", type=int, metavar="N", help="train each model N times, for mean and spread"
    )
    how.add_argument("--trials", type=int, metavar="N", help="of the sweep; 0: no sweep")
    how.add_argument("--tune-model", choices=BACKBONES, help="the model that is swept")
    _add_resources(how)
    return parser


def preparing_parser() -> argparse.ArgumentParser:
    """Flags of the data stage alone; what it does not have is as ``config_from`` finds it unset."""
    parser = SettingsParser(
        prog=program("prepare"),
        description="Read, check, split and decode the photos, and say what became of every file. "
        "Training with the same photos and settings finds them prepared. Exit code 2 where they "
        "are too few or too many are rejected.",
        allow_abbrev=False,
    )
    where = _where_group(parser, name=False)
    where.add_argument("--json", metavar="FILE", help="to write the numbers of files to")
    where.add_argument("--image-size", type=int, metavar="N", help=IMAGE_SIZE)
    where.add_argument("--seed", type=int, metavar="N", help="of the drawings")
    parser.set_defaults(models=None, weights=None, weights_for=[], epochs=None, tune_model=None)
    return parser


def tuning_parser() -> argparse.ArgumentParser:
    """Flags of a sweep alone; what it does not have is as ``config_from`` finds it unset."""
    parser = SettingsParser(
        prog=program("tune"),
        description="Sweep the hyperparameters of one model on validation photos. The same command "
        "again runs the trials that are missing; Ctrl-C ends it with what there is.",
        allow_abbrev=False,
    )
    _where_group(parser)
    sweep = parser.add_argument_group("sweep")
    sweep.add_argument("--model", choices=BACKBONES, required=True, metavar="MODEL",
                       action=_TheOneModel, help=" or ".join(BACKBONES))  # fmt: skip
    sweep.add_argument("--trials", type=at_least_one, metavar="N", default=16, help="default: 16")
    sweep.add_argument(
        "--stage",
        choices=("head", "finetune"),
        help="head: 6 penalties on kept features; finetune: Ray Train runs under ASHA (default)",
    )
    sweep.add_argument(
        "--search",
        choices=("random", "grid", "tpe"),
        help="default: random; tpe needs the extra tpe; the space is in sweep.…, see --set",
    )
    _add_weights(parser.add_argument_group("weights"))
    _add_resources(parser.add_argument_group("training"))
    parser.set_defaults(models=None, tune_model=None, epochs=None)
    return parser


class _TheOneModel(argparse.Action):
    """``--model M`` is ``--models M --tune-model M``."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        namespace.models, namespace.tune_model = [values], values


class _HelpSettings(argparse.Action):
    """``--help-settings`` prints the reference of all settings and ends the program."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        print(as_text())
        parser.exit()


def _where_group(parser: argparse.ArgumentParser, *, name: bool = True) -> Any:
    """Photos, storage and settings; ``name``: also of what concerns a run."""
    where = parser.add_argument_group("what and where")
    where.add_argument("--data", metavar="PATH|URI", help="photos: a folder, an archive or s3://…")
    where.add_argument("photos", nargs="?", metavar="PHOTOS", help="as --data")
    where.add_argument(
        "--max-rejected",
        type=float,
        metavar="SHARE",
        help="stop before training when more of the files are rejected (default: 0.2)",
    )
    where.add_argument(
        "--storage",
        metavar="DIR|URI",
        help="where prepared sets and runs are kept (default: runs; in a Ray job ~/catdog-runs)",
    )
    if name:
        where.add_argument(
            "--name", help="the run's name (default: <preset>-<hash of the settings>)"
        )
        where.add_argument(
            "--track",
            choices=("mlflow",),
            help="tell a tracking server too: the one at MLFLOW_TRACKING_URI (or tracking.uri)",
        )
    where.add_argument(
        "--preset",
        choices=sorted(PRESETS),
        help="sample (default without --data), laptop (default with --data) or cluster",
    )
    where.add_argument(
        "--config", metavar="FILE", help="settings as YAML, e.g. a run's config.yaml"
    )
    where.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="assignments",
        help="any setting by its path, e.g. --set scratch.learning_rate=5e-4",
    )
    where.add_argument(
        "--help-settings", nargs=0, action=_HelpSettings, help="list all settings for --set"
    )
    return where


def _add_weights(model: Any) -> None:
    model.add_argument("--weights", choices=("imagenet", "none"), help="weights of all backbones")
    model.add_argument(
        "--weights-for",
        action="append",
        default=[],
        metavar="MODEL=PATH,scale=0..1",
        help="weights of one backbone and the input scale they were trained with",
    )
    model.add_argument("--image-size", type=int, metavar="N", help=IMAGE_SIZE)


def _add_resources(how: Any) -> None:
    how.add_argument("--batch-size", type=int, metavar="N", help="global, over all workers")
    how.add_argument(
        "--workers",
        type=workers_range,
        metavar="N|MIN:MAX",
        help="0: all GPUs, else all nodes; MIN:MAX: as many of them as there are, while it trains",
    )
    how.add_argument(
        "--use-gpu",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="default: if there are GPUs",
    )
    how.add_argument(
        "--seed", type=int, metavar="N", help="of trainings, sweep and drawings (default: 0)"
    )


def config_from(arguments: argparse.Namespace) -> Config:
    """The settings that the flags ask for.

    Raises:
        UserError: a value does not fit, or the config file cannot be read.
    """
    if arguments.photos is not None:
        if arguments.data is not None:
            raise UserError(f"{arguments.photos}: one argument too many beside --data")
        arguments.data = arguments.photos
    given = _read_config_file(arguments.config) if arguments.config else {}
    preset = arguments.preset or given.get("preset") or ("laptop" if arguments.data else "sample")
    if preset not in PRESETS:
        hint = did_you_mean(nearest(str(preset), PRESETS))
        raise UserError(f"{arguments.config}: there is no preset {preset!r}{hint}")
    tree = merged(PRESETS[preset]().model_dump(mode="json"), given)
    tree["preset"] = preset
    if "storage" not in given:
        tree["storage"] = default_storage()
    tree = changed(tree, _changes(arguments))
    _apply_weights(tree, arguments)
    for assignment in arguments.assignments:
        _assign(tree, assignment)
    if tree["data"]["source"] is not None:
        tree["data"]["source"] = Location.of(tree["data"]["source"]).uri
    refuse_the_job_cache(tree["storage"])
    tree["storage"] = Location.of(tree["storage"]).uri
    return Config.from_tree(tree, arguments.config or "")


def _read_config_file(path: str) -> dict[str, Any]:
    location = Location.of(path)
    try:
        tree = yaml.safe_load(location.read_text())
    except FileNotFoundError:
        raise UserError(f"--config: there is no file {location}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"--config: {location} is not YAML ({type(error).__name__})") from error
    if not isinstance(tree, dict):
        raise UserError(f"--config: {location} does not hold settings by name")
    return tree


def _changes(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings that flags name, as a tree; flags that were not given are absent."""
    places = {
        "data": ("data", "source"),
        "image_size": ("data", "image_size"),
        "max_rejected": ("data", "max_rejected"),
        "storage": ("storage",),
        "name": ("name",),
        "track": ("tracking", "to"),
        "models": ("models",),
        "epochs": ("scratch", "epochs"),
        "fine_tune_epochs": ("fine_tune", "epochs"),
        "batch_size": ("batch_size",),
        "use_gpu": ("compute", "use_gpu"),
        "trials": ("sweep", "trials"),
        "tune_model": ("sweep", "model"),
        "seed": ("seed",),
        "seeds": ("seeds",),
        "stage": ("sweep", "stage"),
        "search": ("sweep", "search"),
    }
    tree: dict[str, Any] = {}
    for flag, path in places.items():
        value = getattr(arguments, flag, None)
        if value is not None:
            _put(tree, path, value)
    if getattr(arguments, "workers", None) is not None:
        least, most = arguments.workers
        _put(tree, ("compute", "workers"), most)
        _put(tree, ("compute", "min_workers"), least)
    return tree


def _put(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    *groups, key = path
    for group in groups:
        below = tree.setdefault(group, {})
        if group == "augmentation" and below in (None, "none"):  # a part is turned on again
            below = tree[group] = AugmentationSettings.all_off()
        if not isinstance(below, dict):
            raise UserError(f"--set {'.'.join(path)}: {group} is {below!r} and has no {key}")
        tree = below
    tree[key] = value


def _apply_weights(tree: dict[str, Any], arguments: argparse.Namespace) -> None:
    if arguments.weights is not None:
        for name in BACKBONES:
            tree["weights"][name] = {"source": arguments.weights, "scale": MODELS[name].scale}
    for text in arguments.weights_for:
        backbone, settings = weights_of(text)
        tree["weights"][backbone] = settings


def weights_of(text: str) -> tuple[str, dict[str, str]]:
    """What ``--weights-for`` says: a backbone, and the source and scale of its weights.

    The scale of a model's ImageNet weights, where it names none.

    Raises:
        UserError: it says neither, or there is no such backbone.
    """
    name, equals, rest = text.partition("=")
    source, _, scale = rest.partition(",scale=")
    if not equals or not source:
        raise UserError(f"--weights-for {text}: write MODEL=PATH,scale=0..1")
    backbone = next((known for known in BACKBONES if known == name), None)
    if backbone is None:
        hint = did_you_mean(nearest(name, BACKBONES)) or f"; there are {', '.join(BACKBONES)}"
        raise UserError(f"--weights-for {text}: there is no backbone {name!r}{hint}")
    if source not in ("none", "imagenet"):
        source = Location.of(source).uri
    return backbone, {"source": source, "scale": scale or MODELS[backbone].scale}


def _assign(tree: dict[str, Any], assignment: str) -> None:
    path, equals, text = assignment.partition("=")
    if not equals:
        raise UserError(f"--set {assignment}: write KEY=VALUE")
    value = yaml.safe_load(text)
    if isinstance(value, str):
        # YAML 1.1 reads 1e-3 as text.
        with contextlib.suppress(ValueError):
            value = float(value)
    _put(tree, path.split("."), value)
