"""Console output: lines, progress bars and tables.

In: lines, stages and progress. Out: standard output and standard error, without secrets. Nothing
else prints, apart from ``--help``. Imports ``redact``.
"""

from catdog.console.output import (
    Advance,
    activity_shown,
    caution,
    chatter_to,
    complain,
    complain_more,
    counted,
    doing,
    duration,
    given,
    is_live,
    plural,
    progress,
    say,
    size,
    stage,
    table,
    warn,
)

__all__ = [
    "Advance",
    "activity_shown",
    "caution",
    "chatter_to",
    "complain",
    "complain_more",
    "counted",
    "doing",
    "duration",
    "given",
    "is_live",
    "plural",
    "progress",
    "say",
    "size",
    "stage",
    "table",
    "warn",
]
