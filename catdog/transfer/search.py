"""The search space of a sweep and the points that its trials try.

A point depends on the seed, its number and, for TPE, the records of the trials before it. So more
trials keep the points that fewer had, and a sweep that was interrupted goes on with the same ones.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from catdog.config import FineTuneSettings, ScratchSettings
from catdog.config.sweep import SearchMethod, SweepSettings
from catdog.errors import UserError, install_command
from catdog.runs.records import Point, Setting, Trial

#: TPE needs some points before it can tell good from bad; these are drawn at random.
RANDOM_FIRST = 5


@dataclass(frozen=True)
class Range:
    """From ``low`` to ``high``, both positive, drawn log-uniformly."""

    low: float
    high: float

    def draw(self, generator: np.random.Generator) -> float:
        return _rounded(math.exp(generator.uniform(math.log(self.low), math.log(self.high))))

    def holds(self, value: Setting) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high

    def spread(self, count: int) -> list[Setting]:
        """``count`` values from end to end; one where both ends are the same."""
        if self.low == self.high:
            return [self.low]
        return [_rounded(value) for value in np.geomspace(self.low, self.high, count)]


Space = Mapping[str, "Range | Sequence[Setting]"]


def space_of(settings: SweepSettings, defaults: Point) -> Space:
    """The search space of ``settings``, for the names in ``defaults`` alone."""
    space: Space = {
        "learning_rate": Range(*settings.learning_rate),
        "unfrozen_blocks": settings.unfrozen_blocks,
        "dropout": settings.dropout,
        "weight_decay": Range(*settings.weight_decay),
        "label_smoothing": settings.label_smoothing,
        "augmentation_strength": settings.augmentation_strength,
    }
    return {name: values for name, values in space.items() if name in defaults}


@dataclass(frozen=True)
class Search:
    """How points are chosen from ``space``; the first is ``defaults``, but for a grid."""

    method: SearchMethod
    space: Space
    defaults: Point
    seed: int = 0
    grid_points: int = 3

    @classmethod
    def of(cls, settings: SweepSettings, defaults: Point, seed: int) -> Search:
        """Raises: UserError: TPE is asked for and Optuna is not installed."""
        if settings.search == "tpe":
            _optuna()
        space = space_of(settings, defaults)
        return cls(settings.search, space, defaults, seed, settings.grid_points)

    def point(self, number: int, ended: Sequence[Trial] = ()) -> Point:
        """The point of trial ``number``, from 0; ``ended`` are the finished trials."""
        if self.method == "grid":
            return self._of_grid(number)
        if number == 0:
            return dict(self.defaults)
        if self.method == "tpe" and number >= RANDOM_FIRST:
            return self._of_tpe(number, ended)
        generator = np.random.default_rng([self.seed, number])
        return {name: _draw(values, generator) for name, values in self.space.items()}

    def count(self, trials: int) -> int:
        """How many of ``trials`` there are: a grid may have fewer points."""
        return min(trials, self.grid_size) if self.method == "grid" else trials

    @property
    def grid_size(self) -> int:
        return math.prod(len(values) for values in self._axes().values())

    def choices(self, names: Sequence[str], trials: int) -> list[Point]:
        """All that ``names`` may be together in ``trials`` trials, without those not swept."""
        swept = [name for name in names if name in self.space]
        if self.method == "tpe":
            # The run's own point is tried first and may lie outside the space.
            first = tuple(self.defaults[name] for name in swept)
            found = [first, *itertools.product(*(_listed(self.space[name], 2) for name in swept))]
        else:
            points = [self.point(number) for number in range(self.count(trials))]
            found = [tuple(point[name] for name in swept) for point in points]
        return [dict(zip(swept, values, strict=True)) for values in dict.fromkeys(found)]

    def _axes(self) -> dict[str, list[Setting]]:
        return {name: _listed(values, self.grid_points) for name, values in self.space.items()}

    def _of_grid(self, number: int) -> Point:
        # In an order drawn once: trials that are fewer than the grid do not try one corner of it.
        axes = self._axes()
        order = np.random.default_rng([self.seed]).permutation(self.grid_size)
        picked = next(itertools.islice(itertools.product(*axes.values()), order[number], None))
        return dict(zip(axes, picked, strict=True))

    def _of_tpe(self, number: int, ended: Sequence[Trial]) -> Point:
        optuna = _optuna()
        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=RANDOM_FIRST)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        distributions = {name: _distribution(values) for name, values in self.space.items()}
        for trial in ended:
            if trial.val_accuracy is not None and self._contains(trial.config):
                study.add_trial(
                    optuna.trial.create_trial(
                        params=self._encoded(trial.config),
                        distributions=distributions,
                        value=trial.val_accuracy,
                    )
                )
        return self._decoded(study.ask(distributions).params)

    def _contains(self, point: Point) -> bool:
        """Whether Optuna can take ``point``: the run's own settings may lie outside the space."""
        return all(
            values.holds(point[name]) if isinstance(values, Range) else point[name] in values
            for name, values in self.space.items()
        )

    def _encoded(self, point: Point) -> Point:
        return {
            name: point[name] if isinstance(values, Range) else list(values).index(point[name])
            for name, values in self.space.items()
        }

    def _decoded(self, parameters: Mapping[str, Any]) -> Point:
        return {
            name: _rounded(parameters[name])
            if isinstance(values, Range)
            else values[parameters[name]]
            for name, values in self.space.items()
        }


def with_point(
    settings: FineTuneSettings | ScratchSettings, point: Point
) -> FineTuneSettings | ScratchSettings:
    """``settings`` as the point has them; ``augmentation_strength`` scales their augmentation."""
    changes: dict[str, object] = dict(point)
    strength = changes.pop("augmentation_strength", None)
    if isinstance(strength, int | float) and isinstance(settings, FineTuneSettings):
        changes["augmentation"] = settings.augmentation.scaled(strength)
    return settings.model_copy(update=changes)


def _draw(values: Range | Sequence[Setting], generator: np.random.Generator) -> Setting:
    if isinstance(values, Range):
        return values.draw(generator)
    return values[int(generator.integers(len(values)))]


def _listed(values: Range | Sequence[Setting], count: int) -> list[Setting]:
    return values.spread(count) if isinstance(values, Range) else list(dict.fromkeys(values))


def _rounded(value: float) -> float:
    """To three digits, as a person would write it."""
    return float(f"{value:.3g}")


def _distribution(values: Range | Sequence[Setting]) -> Any:
    optuna = _optuna()
    if isinstance(values, Range):
        # Rounded values may lie a little outside, so the ends are rounded the same way.
        return optuna.distributions.FloatDistribution(values.low, values.high, log=True)
    # By index: Optuna's categories do not tell 1 from True, nor keep numbers beside "all" apart.
    return optuna.distributions.CategoricalDistribution(list(range(len(values))))


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise UserError(
            f"sweep.search tpe needs Optuna: {install_command('tpe')} (or --search random)"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
