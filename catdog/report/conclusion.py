"""The report's conclusion in sentences, each backed by a number of the results.

A model is called better only where the exact McNemar test on the same photos, corrected for the
number of pairs, says so; everything else is "cannot be told apart".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from catdog.report.load import Run
from catdog.report.results import ModelResult, Pair, Report
from catdog.report.wording import (
    NBSP,
    duration,
    listed,
    p_value,
    percent,
    percent_range,
    plural,
    points,
    title,
    visible,
)


@dataclass(frozen=True)
class Conclusion:
    """What the report says first.

    ``headline`` is the one sentence, ``support`` the facts behind it, ``transfer`` what pretrained
    weights bought, ``cautions`` what a reader must know before believing any of it.
    """

    headline: str
    support: str
    transfer: str
    cautions: list[str]

    @property
    def sentences(self) -> list[str]:
        return [text for text in (self.headline, self.support, self.transfer) if text]


def judge(report: Report) -> Conclusion:
    headline, support = _headline(report)
    return Conclusion(headline, support, _transfer(report), _cautions(report))


def name_of(model: ModelResult, report: Report) -> str:
    """A model's name for people; with its run where there are several."""
    text = title(model.name)
    return text if len(report.runs) == 1 else f"{text} ({report.label(model.run)})"


def _headline(report: Report) -> tuple[str, str]:
    best = report.best
    if best is None or best.test is None:
        return "No model has been evaluated yet, so there is nothing to compare.", _so_far(report)
    reached = (
        f"{name_of(best, report)} gets {percent(best.test.accuracy)} of "
        f"{plural(best.test.n, 'test photo')} right "
        f"(95{NBSP}% interval {percent_range(best.test.accuracy_ci95)})"
    )
    others = [model for model in report.evaluated if model is not best]
    if not others:
        return f"{reached}.", "It is the only model with results, so there is no comparison."
    pairs = {model.key: report.pair(best, model) for model in others}
    compared = [(model, pair) for model in others if (pair := pairs[model.key])]
    apart = [model for model in others if not pairs[model.key]]
    if not compared:
        return f"{reached}.", "The models were not tested on the same photos: no comparison."
    headline, support = _against(report, best, compared)
    if apart:
        support += f" {_names(apart, report)} had other test photos and cannot be compared."
    return headline, f"{reached}{support}"


def _so_far(report: Report) -> str:
    """How far models without test results have come on validation."""
    reached = []
    for model in report.models:
        history = model.files.history
        values = [row.val_accuracy for row in history if math.isfinite(row.val_accuracy)]
        if values:
            epochs = plural(len(history), "epoch")
            reached.append(f"{name_of(model, report)} {percent(max(values))} after {epochs}")
    return f"The best on validation so far: {listed(reached)}." if reached else ""


def _against(
    report: Report, best: ModelResult, compared: list[tuple[ModelResult, Pair]]
) -> tuple[str, str]:
    """Headline and the rest of the supporting sentence for the best among compared models."""
    level = [(model, pair) for model, pair in compared if not pair.won_by(best)]
    beaten = [model for model, pair in compared if pair.won_by(best)]
    name = name_of(best, report)
    if not level:
        second, pair = compared[0]
        headline = (
            f"{name} is better than {name_of(second, report)} by "
            f"{_points_with_interval(pair, best)}, McNemar {p_value(pair.result.mcnemar_p)}."
        )
        also = f" It is also better than {_names(beaten[1:], report)}." if beaten[1:] else ""
        return headline, f".{_over_seeds(pair, best)}{also}"
    close, pair = level[0]
    # Only pairs with the best are claimed: among themselves the others may well differ.
    headline = (
        f"{name} cannot be told apart from {_names([model for model, _ in level], report)} on "
        f"{plural(pair.result.n, 'test photo')}."
    )
    behind = f"is {_points_with_interval(pair, best)} behind"
    if pair.gain(best) == 0:
        behind = f"gets as many: a difference of {_points_with_interval(pair, best)}"
    support = f"; {name_of(close, report)} {behind}, McNemar {p_value(pair.result.mcnemar_p)}."
    support += _over_seeds(pair, best)
    if pair.result.mcnemar_p < 0.05:
        support += f" Corrected for {len(report.pairs)} comparisons that is {p_value(pair.p_holm)}."
    if beaten:
        both = len(level) == 1 and _beats_all(report, close, beaten)
        support += f" {'Both are' if both else f'{name} is'} better than {_names(beaten, report)}."
    return headline, support


def _names(models: list[ModelResult], report: Report) -> str:
    return listed([name_of(model, report) for model in models])


def _beats_all(report: Report, model: ModelResult, others: list[ModelResult]) -> bool:
    pairs = [report.pair(model, other) for other in others]
    return all(pair and pair.won_by(model) for pair in pairs)


def _over_seeds(pair: Pair, model: ModelResult) -> str:
    """Whether another training would say the same, where there were several."""
    repeats = pair.over_seeds
    if repeats is None or repeats.mean_ci95 is None:
        return ""
    turn = 1 if pair.a.key == model.key else -1
    low, high = sorted(turn * end for end in repeats.mean_ci95)
    return (
        f" Over {plural(repeats.n, 'seed')} the mean difference is {points(turn * repeats.mean)} "
        f"points ({points(low)} to {points(high)})."
    )


def _points_with_interval(pair: Pair, model: ModelResult) -> str:
    low, high = pair.gain_ci95(model)
    return f"{points(pair.gain(model))} points ({points(low)} to {points(high)})"


def _transfer(report: Report) -> str:
    """What the best pretrained backbone gained over the base CNN, its own run's, and its time."""
    bases = [m for m in report.evaluated if m.name == "base_cnn"]
    backbones = [m for m in report.evaluated if m.name != "base_cnn"]
    pretrained = [m for m in backbones if m.pretrained]
    if not pretrained:
        if backbones:
            return "No model here began with pretrained weights: this says nothing about transfer."
        return ""
    if not bases:
        return "What transfer bought is unknown, for the base CNN has no result to compare with."
    best = pretrained[0]
    base = next((m for m in bases if m.run is best.run), bases[0])
    pair = report.pair(best, base)
    if pair is None:
        return ""
    gain = _points_with_interval(pair, best)
    verdict = f"Transfer with {name_of(best, report)} bought {gain} over the base CNN"
    if not pair.told_apart:
        verdict = (
            f"Transfer with {name_of(best, report)} bought nothing that can be told apart: "
            f"{gain} against the base CNN"
        )
    elif pair.gain(best) < 0:
        verdict = (
            f"Transfer did not pay: {name_of(best, report)} is "
            f"{_points_with_interval(pair, base)} behind the base CNN"
        )
    return f"{verdict}{_time_difference(best, base)}."


def _time_difference(model: ModelResult, base: ModelResult) -> str:
    ours = model.training.seconds if model.training else None
    theirs = base.training.seconds if base.training else None
    if ours is None or theirs is None:
        return ""
    if abs(ours - theirs) < 0.5:
        return ", in the same training time"
    more = "more" if ours > theirs else "less"
    return (
        f", in {duration(abs(ours - theirs))} {more} training "
        f"({duration(ours)} against {duration(theirs)})"
    )


def _cautions(report: Report) -> list[str]:
    several = len(report.runs) > 1
    found = []
    for run in report.runs:
        where = f"{report.label(run)}: " if several else ""
        found += [f"{where}{text}" for text in _of_run(run)]
        notes = [visible(note) for note in run.record.notes]
        # The run's own notes name a backbone that had to go without; once is enough.
        random = [
            title(model.name)
            for model in report.models
            if model.run is run
            and model.random_backbone
            and not any("random" in note and model.name in note for note in notes)
        ]
        if random:
            found.append(
                f"{where}{listed(random)} began with random weights, so this is not what "
                f"{'they do' if len(random) > 1 else 'it does'} with pretrained ones."
            )
        found += [f"{where}{_sentence(note)}" for note in notes]
    return found + _about_comparison(report)


def _of_run(run: Run) -> list[str]:
    found = []
    if run.manifest.sample:
        found.append(
            "The pictures are the built-in drawings. They prove that the job runs and say nothing "
            "about accuracy on photographs."
        )
    status = run.record.status
    if status != "finished":
        error = (run.record.error or "").strip()
        cause = f": {visible(error.splitlines()[0])}" if error else ""
        state = "failed" if status == "failed" else "is not finished"
        found.append(f"This run {state}{cause}. The report shows what there is.")
    missing = [title(files.name) for files in run.models if files.test is None]
    if missing and len(missing) < len(run.models):
        found.append(f"No test results for {listed(missing)}.")
    return found + [visible(problem) for problem in run.problems]


def _sentence(note: str) -> str:
    return note if note.endswith((".", "!", "?")) else f"{note}."


def _about_comparison(report: Report) -> list[str]:
    found = _no_better_than_one_answer(report)
    sizes = {model.test.n for model in report.evaluated if model.test}
    if sizes and min(sizes) < 100:
        found.append(
            f"With {plural(min(sizes), 'test photo')} only large differences can be seen; "
            "more photos make the intervals narrower."
        )
    # A run of before 2026-11-23 does not tell what was in its photos, only how they were listed.
    sets = (run.manifest.contents or run.manifest.fingerprint for run in report.runs)
    if len(set(sets)) > 1:
        found.append(
            "The runs used different sets of photos. Models are compared on the photos that both "
            "were tested on, but they learned from different ones."
        )
    return found


def _no_better_than_one_answer(report: Report) -> list[str]:
    """Models whose interval reaches what answering every photo alike would get."""
    weak, share, answer = [], 0.0, ""
    for model in report.evaluated:
        assert model.test is not None
        cats, dogs = (sum(row) for row in model.test.confusion)
        alike = max(cats, dogs) / model.test.n
        if model.test.accuracy_ci95.low <= alike and min(cats, dogs):
            weak.append(model)
            share, answer = alike, "cat" if cats >= dogs else "dog"
    if not weak:
        return []
    line = (
        f"Always answering “{answer}” would be right for {percent(share)} of the test photos; "
        f"nothing shows that {_names(weak, report)} can do better."
    )
    return [line]
