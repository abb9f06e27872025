"""Templates to pages: HTML with everything inside it, Markdown, model cards."""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from typing import Literal

import jinja2

from catdog import __version__
from catdog.evaluation.metrics import CALIBRATION_BINS
from catdog.report import wording
from catdog.report.facts import FILTERS
from catdog.report.svg import trusted
from catdog.report.views import View

_WORDING = (
    "code_block",
    "decimal",
    "duration",
    "megabytes",
    "millions",
    "number_range",
    "p_value",
    "percent",
    "percent_range",
    "plural",
    "points",
    "significant",
    "visible",
)


def html(view: View) -> str:
    """The whole page. It asks the network for nothing and may run no script but its own."""
    environment = _environment("html")
    style = _source(environment, "style.css")
    script = _source(environment, "sort.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    return environment.get_template("report.html.j2").render(
        **view, style=trusted(style), script=trusted(script), policy=policy
    )


def markdown(template: str, view: View) -> str:
    """A Markdown page in which every value is plain words, whatever it holds."""
    return _environment("markdown").get_template(template).render(**view)


@lru_cache
def _environment(kind: Literal["html", "markdown"]) -> jinja2.Environment:
    """Kept, for compiling the templates takes longer than filling them in."""
    # Markdown is not HTML: there `finalize` escapes every value instead.
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("catdog.report", "templates"),
        autoescape=kind == "html",
        finalize=wording.markdown_value if kind == "markdown" else None,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {name: getattr(wording, name) for name in _WORDING} | FILTERS
    environment.globals |= {"calibration_bins": CALIBRATION_BINS, "catdog_version": __version__}
    return environment


def _source(environment: jinja2.Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]
