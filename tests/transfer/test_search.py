"""The points of a sweep: the same for a seed, the settings at hand first, whatever the method."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from catdog.config import FineTuneSettings
from catdog.config.sweep import SweepSettings
from catdog.errors import UserError
from catdog.runs.records import Trial
from catdog.transfer.search import Range, Search, with_point

DEFAULTS: dict[str, Any] = {
    "learning_rate": 1e-4,
    "unfrozen_blocks": 2,
    "dropout": 0.2,
    "weight_decay": 0.01,
    "label_smoothing": 0.0,
    "augmentation_strength": 1.0,
}


def search(seed: int = 0, defaults: dict[str, Any] = DEFAULTS, **changes: Any) -> Search:
    return Search.of(SweepSettings(**changes), defaults, seed)


def points(of: Search, count: int) -> list[dict[str, Any]]:
    return [of.point(number) for number in range(count)]


def record(point: dict[str, Any], accuracy: float | None) -> Trial:
    return Trial(config=point, val_accuracy=accuracy)


@pytest.mark.parametrize("method", ["random", "tpe"])
def test_the_settings_at_hand_are_the_first_point(method: Any) -> None:
    assert search(search=method).point(0) == DEFAULTS


def test_points_depend_on_the_seed_and_their_number_alone() -> None:
    assert points(search(0), 6) == points(search(0), 6)
    assert points(search(0), 6)[1:] != points(search(1), 6)[1:]


def test_points_lie_in_the_space() -> None:
    space = search(learning_rate=(1e-5, 1e-3), unfrozen_blocks=(1, "all"))
    for point in points(space, 50)[1:]:
        assert 1e-5 <= point["learning_rate"] <= 1e-3
        assert point["unfrozen_blocks"] in (1, "all")
        assert point["label_smoothing"] in (0.0, 0.05, 0.1)


def test_what_a_training_does_not_have_is_not_swept() -> None:
    few = search(defaults={"learning_rate": 1e-3, "dropout": 0.2})
    assert all(set(point) == {"learning_rate", "dropout"} for point in points(few, 4))


def test_a_grid_tries_each_of_its_points_once() -> None:
    grid = search(
        search="grid",
        defaults={"learning_rate": 1e-3, "dropout": 0.2},
        learning_rate=(1e-4, 1e-2),
        dropout=(0.0, 0.5),
    )
    assert grid.count(100) == 6
    found = {(point["learning_rate"], point["dropout"]) for point in points(grid, 6)}
    assert found == {(rate, dropout) for rate in (1e-4, 1e-3, 1e-2) for dropout in (0.0, 0.5)}


def test_more_trials_of_a_grid_keep_the_points_that_fewer_had() -> None:
    grid = search(search="grid")
    assert grid.count(16) == 16
    assert points(grid, 16)[:4] == points(search(search="grid"), 4)


def test_a_range_of_one_value_is_one_value() -> None:
    assert Range(0.01, 0.01).spread(3) == [0.01]
    fixed = search(learning_rate=(0.01, 0.01), dropout=(0.3,))
    assert {point["learning_rate"] for point in points(fixed, 5)[1:]} == {0.01}


def test_tpe_comes_nearer_to_what_was_good() -> None:
    pytest.importorskip("optuna")
    tpe = search(search="tpe", learning_rate=(1e-5, 1e-1))
    records: list[Trial] = []
    for number in range(30):
        point = tpe.point(number, records)
        good = point["dropout"] == 0.4 and point["learning_rate"] > 1e-2
        records.append(record(point, 0.9 if good else 0.5))
    late = [entry.config["dropout"] for entry in records[15:]]
    assert late.count(0.4) > len(late) / 2
    assert tpe.point(20, records[:20]) == records[20].config, "the same records, the same point"


def test_tpe_passes_over_failed_trials_and_settings_outside_its_space() -> None:
    pytest.importorskip("optuna")
    tpe = search(search="tpe", unfrozen_blocks=(4, 8, "all"))
    told = [record(DEFAULTS, 0.9)]  # two unfrozen blocks are none of the choices
    told += [record(point, None) for point in points(tpe, 5)[1:]]
    assert tpe.point(7, told)["unfrozen_blocks"] in (4, 8, "all")


def test_the_choices_are_those_of_the_trials() -> None:
    names = ("unfrozen_blocks", "augmentation_strength", "nothing of this search")
    drawn = search(unfrozen_blocks=(1, 2), augmentation_strength=(0, 1))
    seen = [{name: point[name] for name in names[:2]} for point in points(drawn, 5)]
    found = drawn.choices(names, 5)
    assert all(choice in found for choice in seen)
    assert all(choice in seen for choice in found)
    assert len(found) == len({tuple(choice.values()) for choice in found})
    assert search().choices(("nothing",), 3) == [{}]


def test_those_of_tpe_are_all_it_might_come_to() -> None:
    pytest.importorskip("optuna")
    tpe = search(search="tpe", unfrozen_blocks=(1, "all"), augmentation_strength=(0,))
    found = tpe.choices(("unfrozen_blocks", "augmentation_strength"), 9)
    assert [tuple(choice.values()) for choice in found] == [(2, 1.0), (1, 0), ("all", 0)]


def test_tpe_without_optuna_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)  # as where it is not installed
    with pytest.raises(UserError, match=r"pip install .* --editable '\.\[tpe\]'"):
        search(search="tpe")


def test_the_strength_scales_the_augmentation() -> None:
    base = FineTuneSettings()
    stronger = with_point(base, {"augmentation_strength": 2.0, "dropout": 0.4})
    assert isinstance(stronger, FineTuneSettings)
    assert stronger.augmentation.zoom == pytest.approx(2 * base.augmentation.zoom)
    assert stronger.dropout == 0.4
    none = with_point(base, {"augmentation_strength": 0.0})
    assert isinstance(none, FineTuneSettings)
    assert not any(none.augmentation.model_dump().values())


@pytest.mark.parametrize(
    "changes",
    [{"dropout": (1.5,)}, {"learning_rate": (1e-2, 1e-4)}, {"unfrozen_blocks": (-1,)}, {"lr": 1}],
)
def test_a_space_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        SweepSettings(**changes)
