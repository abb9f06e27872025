"""The text of a model card: how the model was made, its metrics, its limits."""

from __future__ import annotations

from catdog.report.charts import PHASE_NAMES
from catdog.report.facts import repeat_rows, weights_words
from catdog.report.results import ModelResult
from catdog.report.views import View
from catdog.report.wording import count, duration, percent, plural, visible, workers_words


def card(view: View, model: ModelResult) -> View:
    """What a model card names, beside all that the report's pages do."""
    return {
        **view,
        "model": model,
        "card_rows": _card_rows(model),
        "weak_spots": _weak(view, model),
    }


def _card_rows(model: ModelResult) -> list[tuple[str, str]]:
    facts, training = model.files.facts, model.training
    best = facts.best
    rows = {
        "Weights it began with": weights_words(model)
        + (f", hash {facts.weights_hash}" if facts.weights_hash else ""),
        "Training": f"{plural(training.epochs or 0, 'epoch')} in {duration(training.seconds)}"
        if training
        else "",
        "Kept": f"epoch {best.epoch} of {PHASE_NAMES.get(best.phase, '')}" if best.epoch else "",
        "Unfrozen blocks": str(facts.unfrozen_blocks or ""),
        "Precision": facts.precision or "",
        "Result": workers_words(facts),
        "Seed": "" if facts.seed is None else str(facts.seed),
    }
    repeat = dict(repeat_rows(model.run))
    rows |= {term: repeat.get(term, "") for term in ("Data", "Versions", "Git commit")}
    return [(term, visible(words)) for term, words in rows.items() if words]


def _weak(view: View, model: ModelResult) -> list[str]:
    """The worst group of each property whose interval lies below the model's accuracy."""
    lines = []
    for run, _, drawn, _ in view["slices"]:
        for part, _ in drawn if run is model.run else ():
            cells = [
                (piece, piece.cells[model.key]) for piece in part.bins if model.key in piece.cells
            ]
            if not cells or model.test is None:
                continue
            piece, cell = min(cells, key=lambda item: item[1].accuracy)
            if cell.interval.high < model.test.accuracy:
                lines.append(
                    f"By {part.title} it is weakest on {piece.name} photos: "
                    f"{percent(cell.accuracy)} of {count(cell.n)}."
                )
    return lines
