"""All numbers of the report, computed once from the runs' files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from catdog.evaluation import intervals, metrics
from catdog.evaluation.intervals import Interval, Spread
from catdog.evaluation.metrics import Array, Comparison, Evaluation, Temperature
from catdog.report.alignment import aligned, averaged
from catdog.report.load import ModelFiles, Predictions, Run
from catdog.report.wording import visible


@dataclass(frozen=True)
class Training:
    """What training took; parts that nobody wrote down are ``None``. ``cost`` is in the currency
    of the price per hour that was given."""

    epochs: int | None
    seconds: float | None
    images_per_second: float | None
    workers: int | None
    restarts: int | None
    cost: float | None = None


@dataclass(frozen=True)
class Calibration:
    """A temperature fitted on validation and what it changes on test."""

    temperature: Temperature
    ece: float
    loss: float


@dataclass(frozen=True, eq=False)
class ModelResult:
    """One model of one run. ``key`` names it in this report, also among several runs."""

    key: str
    run: Run
    files: ModelFiles
    weights: str | None
    parameters: int | None
    training: Training | None
    test: Evaluation | None
    val: Evaluation | None
    calibration: Calibration | None
    seeds: Spread | None

    @property
    def name(self) -> str:
        return self.files.name

    @property
    def pretrained(self) -> bool:
        return self.weights not in (None, "none", "random")

    @property
    def random_backbone(self) -> bool:
        return self.name != "base_cnn" and self.weights in ("none", "random")


@dataclass(frozen=True, eq=False)
class Pair:
    """Two models on the photos that both judged; ``p_holm`` corrects for the number of pairs."""

    a: ModelResult
    b: ModelResult
    result: Comparison
    p_holm: float
    over_seeds: Spread | None

    @property
    def told_apart(self) -> bool:
        return self.p_holm < 0.05

    def gain(self, model: ModelResult) -> float:
        """Accuracy of ``model`` less that of the other one."""
        return self.result.difference if self.a.key == model.key else -self.result.difference

    def gain_ci95(self, model: ModelResult) -> Interval:
        low, high = self.result.ci95
        return self.result.ci95 if self.a.key == model.key else Interval(-high, -low)

    def won_by(self, model: ModelResult) -> bool:
        return self.told_apart and self.gain(model) > 0


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Models averaged, or one averaged over mirror images: no training, only arithmetic.

    ``gain`` compares it with the model named ``against``: the same one without mirror images, or
    the most accurate of those that are averaged.
    """

    name: str
    run: Run
    test: Evaluation
    against: str
    gain: Comparison


@dataclass(frozen=True, eq=False)
class Report:
    runs: tuple[Run, ...]
    models: tuple[ModelResult, ...]
    ensembles: tuple[Ensemble, ...]
    pairs: tuple[Pair, ...]
    price_per_hour: float | None

    @property
    def first(self) -> Run:
        return self.runs[0]

    def label(self, run: Run) -> str:
        """The name of one of the runs in this report."""
        return run_labels(self.runs)[self.runs.index(run)]

    @property
    def evaluated(self) -> list[ModelResult]:
        """Models with test results, best accuracy first; equal ones by their loss."""
        return _ranked(self.models)

    @property
    def best(self) -> ModelResult | None:
        """The most accurate model that no other beats; ``None`` before there are results.

        Between runs with different test photos the most accurate can be beaten: on easy photos.
        """
        ranked = self.evaluated
        for model in ranked:
            pairs = [(other, self.pair(model, other)) for other in ranked if other is not model]
            if not any(pair and pair.won_by(other) for other, pair in pairs):
                return model
        return ranked[0] if ranked else None

    def pair(self, one: ModelResult, other: ModelResult) -> Pair | None:
        """The comparison of two models, in either order."""
        wanted = {one.key, other.key}
        return next((p for p in self.pairs if {p.a.key, p.b.key} == wanted), None)


def assemble(runs: Sequence[Run], price_per_hour: float | None = None) -> Report:
    """Evaluate all models of ``runs`` and compare each with each."""
    labels = run_labels(runs)
    models = tuple(
        _model(run, files, files.name if index == 0 else f"{files.name} @ {label}", price_per_hour)
        for index, (run, label) in enumerate(zip(runs, labels, strict=True))
        for files in run.models
    )
    return Report(
        runs=tuple(runs),
        models=models,
        ensembles=tuple(ensemble for run in runs for ensemble in _ensembles(run)),
        pairs=_pairs(_ranked(models)),
        price_per_hour=price_per_hour,
    )


def run_labels(runs: Sequence[Run]) -> list[str]:
    """Names of runs, made visible, numbered where two are equal."""
    names = [visible(run.name) for run in runs]
    return [
        name if names.count(name) == 1 else f"{name} #{names[: i + 1].count(name)}"
        for i, name in enumerate(names)
    ]


def _model(run: Run, files: ModelFiles, key: str, price: float | None) -> ModelResult:
    return ModelResult(
        key=key,
        run=run,
        files=files,
        weights=_weights(run, files),
        parameters=files.facts.parameters,
        training=_training(run, files, price),
        test=_evaluate(files.test),
        val=_evaluate(files.val),
        calibration=_calibrate(files),
        seeds=_over_seeds(files),
    )


def _weights(run: Run, files: ModelFiles) -> str | None:
    """As trained; for a model that is not yet, as asked for."""
    if files.facts.weights is not None:
        return files.facts.weights
    if files.name == "base_cnn":
        return "none"
    asked = (run.config.get("weights") or {}).get(files.name) or {}
    return asked.get("source")


def _training(run: Run, files: ModelFiles, price: float | None) -> Training | None:
    facts = files.facts.train
    if not facts.model_fields_set and not files.history:
        return None
    seconds = facts.seconds
    if seconds is None:
        seconds = sum(row.seconds for row in files.history) or None
    return Training(
        epochs=len(files.history) if facts.epochs is None else facts.epochs,
        seconds=seconds,
        images_per_second=facts.images_per_second,
        workers=facts.workers,
        # A checkpoint knows of those that went on from one; only events tell of the others.
        restarts=max(facts.restarts, len(run.restarts(files.name))),
        cost=None if price is None or seconds is None else price * seconds / 3600,
    )


def _evaluate(predictions: Predictions | None) -> Evaluation | None:
    if predictions is None:
        return None
    return metrics.evaluate(predictions.labels, predictions.logits)


def _calibrate(files: ModelFiles) -> Calibration | None:
    if files.val is None or files.test is None:
        return None
    fitted = metrics.fit_temperature(files.val.labels, files.val.logits)
    labels, scaled = files.test.labels, files.test.logits / fitted.value
    return Calibration(
        fitted,
        metrics.calibration_error(labels, scaled),
        float(metrics.cross_entropy(labels, scaled).mean()),
    )


def seed_accuracies(files: ModelFiles) -> dict[int, float]:
    """Test accuracy by seed: the model's own training and its repeats."""
    found = {repeat.seed: repeat.test for repeat in files.seeds}
    if files.test is not None:
        found[files.facts.seed or 0] = files.test
    return {
        seed: float(metrics.correct(test.labels, test.logits).mean())
        for seed, test in sorted(found.items())
        if test is not None
    }


def _ranked(models: Sequence[ModelResult]) -> list[ModelResult]:
    def rank(model: ModelResult) -> tuple[float, float]:
        assert model.test is not None
        return -model.test.accuracy, model.test.loss

    return sorted((model for model in models if model.test), key=rank)


def _over_seeds(files: ModelFiles) -> Spread | None:
    accuracies = list(seed_accuracies(files).values())
    return intervals.spread(accuracies) if len(accuracies) > 1 else None


def _pairs(models: Sequence[ModelResult]) -> tuple[Pair, ...]:
    """Each model with each other, the more accurate one first."""
    found = []
    for a, b in combinations(models, 2):
        if a.files.test is None or b.files.test is None:
            continue
        joined = aligned([a.files.test, b.files.test])
        if joined is not None:
            labels, (logits_a, logits_b) = joined
            found.append((a, b, metrics.compare(labels, logits_a, logits_b)))
    corrected = intervals.holm([result.mcnemar_p for _, _, result in found])
    return tuple(
        Pair(a, b, result, p, _seed_difference(a.files, b.files))
        for (a, b, result), p in zip(found, corrected, strict=True)
    )


def _seed_difference(a: ModelFiles, b: ModelFiles) -> Spread | None:
    """Difference of accuracies over the seeds that both have."""
    ours, theirs = seed_accuracies(a), seed_accuracies(b)
    differences = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    return intervals.spread(differences) if len(differences) > 1 else None


def _ensembles(run: Run) -> Iterator[Ensemble]:
    """The average of all models, and each model averaged over the picture and its mirror image."""
    ready = [(files.name, files.test) for files in run.models if files.test is not None]
    joined = aligned([test for _, test in ready]) if len(ready) > 1 else None
    if joined is not None:
        labels, logits = joined
        right = [int(metrics.correct(labels, each).sum()) for each in logits]
        best = right.index(max(right))
        yield _ensemble("average", run, labels, averaged(logits), ready[best][0], logits[best])
    for name, test in ready:
        yield _ensemble(f"{name}+tta", run, test.labels, test.mirrored, name, test.logits)


def _ensemble(
    name: str, run: Run, labels: Array, logits: Array, against: str, theirs: Array
) -> Ensemble:
    gain = metrics.compare(labels, logits, theirs)
    return Ensemble(name, run, metrics.evaluate(labels, logits), against, gain)
