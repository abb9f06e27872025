"""The comparison report, from run directories' files alone.

In: one run directory or several. Out: ``report.json``, ``report.html``, ``report.md`` and a card
for each model. Imports ``config``, ``console``, ``errors``, ``evaluation``, ``redact``, ``runs``
and ``storage``; neither Ray nor TensorFlow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catdog.storage import Location


def build(run_dirs: Sequence[Location], *, price_per_hour: float | None = None) -> Location:
    """Write ``report.json``, ``report.html`` and ``report.md`` into the first of ``run_dirs``.

    With several runs their models stand side by side, compared on the test photos they share. Each
    model of the first run that has results gets a ``MODEL_CARD.md`` beside its files.
    ``price_per_hour`` of all machines together adds what training cost.

    Returns:
        The location of ``report.html``.

    Raises:
        UserError: a location is not a run directory.
    """
    from catdog.report import contract, render, views
    from catdog.report.card import card
    from catdog.report.conclusion import judge
    from catdog.report.load import load
    from catdog.report.results import assemble

    report = assemble([load(root) for root in run_dirs], price_per_hour)
    verdict = judge(report)
    view = views.context(report, verdict)
    home = run_dirs[0]
    for model in report.models:
        if model.run is report.first and model.test is not None:
            text = render.markdown("card.md.j2", card(view, model))
            (home / "models" / model.name / "MODEL_CARD.md").write_text(text)
    (home / "report.md").write_text(render.markdown("report.md.j2", view))
    page = home / "report.html"
    page.write_text(render.html(view))
    # Last: who finds the JSON finds the pages too.
    (home / "report.json").write_json(contract.document(report, verdict))
    return page
