"""The points of a sweep: the same for a seed, the settings at hand first."""

from __future__ import annotations

from catdog.config import SweepSettings
from catdog.transfer.sweep import draw_points

DEFAULTS = {"learning_rate": 1e-4, "unfrozen_blocks": 2, "dropout": 0.2, "weight_decay": 0.01}


def test_the_settings_at_hand_are_the_first_point() -> None:
    assert draw_points(SweepSettings(trials=3), DEFAULTS, seed=0)[0] == DEFAULTS


def test_points_depend_on_the_seed_alone() -> None:
    space = SweepSettings(trials=6)
    assert draw_points(space, DEFAULTS, 0) == draw_points(space, DEFAULTS, 0)
    assert draw_points(space, DEFAULTS, 0)[1:] != draw_points(space, DEFAULTS, 1)[1:]


def test_more_trials_keep_the_points_that_fewer_had() -> None:
    few = draw_points(SweepSettings(trials=3), DEFAULTS, 0)
    many = draw_points(SweepSettings(trials=8), DEFAULTS, 0)
    assert many[:3] == few


def test_points_lie_in_the_space() -> None:
    space = SweepSettings(trials=50, learning_rate=(1e-5, 1e-3), unfrozen_blocks=(1, "all"))
    for point in draw_points(space, DEFAULTS, 0)[1:]:
        assert 1e-5 <= point["learning_rate"] <= 1e-3
        assert point["unfrozen_blocks"] in (1, "all")


def test_what_a_training_does_not_have_is_not_swept() -> None:
    points = draw_points(SweepSettings(trials=4), {"learning_rate": 1e-3, "dropout": 0.2}, 0)
    assert all(set(point) == {"learning_rate", "dropout"} for point in points)
