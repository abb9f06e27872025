"""Checks and estimates before any work: photos, weights, disk, cluster, time."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping

from catdog import console
from catdog.cluster.connection import connected
from catdog.cluster.resources import Resources, plan_workers
from catdog.cluster.workers import Workers
from catdog.config import Config, ModelName
from catdog.config.architectures import MODELS
from catdog.data.prepare import Survey, survey
from catdog.errors import UserError
from catdog.models.registry import boundary
from catdog.models.weights import cannot_download, check_source, missing
from catdog.pipeline.tracking import check_tracking
from catdog.runs import RunDirectory
from catdog.storage import Location
from catdog.storage.access import check_readable

#: The start of Ray and of a worker group; a model's building, first step and predictions; what a
#: trial takes beside its epochs. Seconds, on two cores.
GROUP_S, MODEL_S, TRIAL_S = 30.0, 15.0, 5.0
#: Of a training step: a forward pass; the upper blocks alone, from kept activations.
FORWARD_SHARE, KEPT_SHARE = 0.4, 0.1


def check_places(config: Config) -> None:
    """Whether what lies in buckets can be reached, before anything else is asked of it.

    Raises:
        UserError: it cannot.
    """
    check_readable(config.storage, "--storage")
    if config.data.source is not None:
        check_readable(config.data.source, "--data")
    for name in config.models:
        source = config.weights_of(name).source
        if source not in ("none", "imagenet"):
            check_readable(source, f"--weights-for {name}")


def check(config: Config) -> Survey:
    """The part that needs no cluster and takes a moment; done before every run.

    Raises:
        UserError: no such photos or weights, one class only, not enough disk, no tracking server
            named.
    """
    check_tracking(config.tracking)
    for name in config.models:
        check_source(name, config.weights_of(name))
    seen = survey(config.data, config.seed)
    free = Location.of(config.storage).free_bytes()
    if free is not None and free < seen.needed_bytes:
        raise UserError(
            f"{config.storage}: {console.size(seen.needed_bytes)} are needed for the prepared "
            f"photos and {console.size(free)} are free; give another --storage"
        )
    return seen


def print_plan(config: Config) -> None:
    """``--dry-run``: what would be done, with what, and about how long it takes.

    Raises:
        UserError: what the job would raise before it starts, that weights cannot be had too.
    """
    check_places(config)
    seen = check(config)
    with connected():
        resources = Resources.at_most()
        workers = plan_workers(config, resources)
        lacking = lacking_weights(config)
    for line in plan_lines(config, seen, workers, lacking):
        console.say(line)
    if config.preset == "cluster":  # which alone does not go on without
        for name, reason in lacking.items():
            raise UserError(cannot_download(name, reason))


def lacking_weights(config: Config) -> dict[ModelName, str]:
    """Backbones whose ImageNet weights cannot be had here, and why. Ray must be initialised."""
    storage = Location.of(config.storage)
    reasons = {name: missing(name, config.weights_of(name), storage) for name in config.models}
    return {name: reason for name, reason in reasons.items() if reason}


def plan_lines(
    config: Config, seen: Survey, workers: Workers, lacking: Mapping[ModelName, str]
) -> list[str]:
    """The plan in two columns."""
    facts = list(_facts(config, seen, workers, lacking))
    width = max(len(key) for key, _ in facts) + 2
    return [f"{key:{width}}{value}" for key, value in facts]


def _facts(
    config: Config, seen: Survey, workers: Workers, lacking: Mapping[ModelName, str]
) -> Iterator[tuple[str, str]]:
    cat, dog = seen.classes.get("cat", 0), seen.classes.get("dog", 0)
    unknown = seen.files - cat - dog
    yield "run", str(RunDirectory.of(config).root)
    yield (
        "photos",
        f"{seen.files} in {seen.source}: {cat} cats, {dog} dogs, {unknown} without label",
    )
    free = Location.of(config.storage).free_bytes()
    room = "" if free is None else f" of {console.size(free)} free"
    yield "disk", f"{console.size(seen.needed_bytes)}{room}"
    yield "compute", f"{workers}, {workers.precision}"
    for name in config.models:
        weights = config.weights_of(name)
        start = "from scratch" if not weights.pretrained else f"weights: {weights.source}"
        if name in lacking:
            start += f" (cannot be downloaded here: {lacking[name]}); features of random weights"
        epochs = _epochs(config, name, lacking)
        how = console.plural(epochs, "epoch") if epochs else "a head on frozen features"
        yield name, f"{config.image_size_of(name)} pixels, {how}, {start}"
    trials = config.sweep.trials
    yield "sweep", console.plural(trials, "trial") if trials else "none"
    if config.seeds > 1:
        yield "seeds", f"{config.seeds}: {_repeated(config, lacking)}"
    if workers.use_gpu:
        yield "time", "not estimated for GPUs"
    else:
        yield "time", f"about {console.duration(estimate_seconds(config, seen, workers, lacking))}"


def _repeated(config: Config, lacking: Container[ModelName]) -> str:
    """Which models are trained with every seed: heads on frozen features come out the same."""
    trained = [name for name in config.models if _epochs(config, name, lacking)]
    return ", ".join(trained) or "no model is repeated, as heads on frozen features come out alike"


def _epochs(config: Config, name: ModelName, lacking: Container[ModelName] = ()) -> int:
    """Of the final training; 0 where the probe is the model."""
    if not config.weights_of(name).pretrained:
        backbone = MODELS[name].is_backbone and config.scratch.backbone_epochs
        return backbone or config.scratch.epochs
    return 0 if name in lacking or config.ends_with_probe(name) else config.fine_tune.epochs


def estimate_seconds(
    config: Config, seen: Survey, workers: Workers, lacking: Container[ModelName] = ()
) -> float:
    """From measured costs of a photo on a CPU core; good to a factor of two."""
    photos = seen.classes.get("cat", 0) + seen.classes.get("dog", 0)
    learnt = photos * (1 - config.data.test_fraction - config.data.val_fraction)
    cores = workers.count * workers.cpus

    def photo_s(name: ModelName) -> float:
        area = (config.image_size_of(name) / 128) ** 2
        return MODELS[name].training_ms / 1000 * area / cores

    def epochs_s(name: ModelName, epochs: int) -> float:
        whole = epochs * learnt * photo_s(name)
        settings = config.fine_tune
        kept = settings.keeps_activations and boundary(name, settings.unfrozen_blocks) != "pixels"
        return KEPT_SHARE * whole if kept and config.weights_of(name).pretrained else whole

    seconds = GROUP_S
    for name in config.models:
        # Each photo once: for its features, where there are any, or as one for testing.
        passes = photos if config.weights_of(name).pretrained else photos - learnt
        seconds += MODEL_S + passes * photo_s(name) * FORWARD_SHARE
        epochs = _epochs(config, name, lacking)
        seconds += epochs_s(name, epochs)
        if epochs:  # the trainings with other seeds, each with its test photos
            tested = photos * config.data.test_fraction
            again = MODEL_S + tested * photo_s(name) * FORWARD_SHARE + epochs_s(name, epochs)
            seconds += (config.seeds - 1) * again
    tuned = [n for n in config.models if MODELS[n].is_backbone and _epochs(config, n, lacking)]
    swept = config.sweep.model or next(iter(tuned[::-1]), None)
    if swept and config.sweep.trials and config.sweep.stage == "finetune":
        trial_s = TRIAL_S + epochs_s(swept, config.sweep.epochs)
        seconds += config.sweep.trials * trial_s
    return seconds
