"""Format numbers, names and sentences for people, and escape what goes into pages."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Any

from catdog.config.architectures import MODELS
from catdog.redact import USER_INFO
from catdog.runs.records import Model

MODEL_TITLES: dict[str, str] = {name: info.title for name, info in MODELS.items()} | {
    "average": "Average of the models"
}
MINUS = "\N{MINUS SIGN}"
THIN = "\N{NARROW NO-BREAK SPACE}"
NBSP = "\N{NO-BREAK SPACE}"
DASH = "\N{EN DASH}"
MISSING = "\N{EM DASH}"

_QUERY = re.compile(r"(\b(?:s3|gs|gcs|abfs|https?)://[^\s?'\"]*)\?[^\s'\"]*", re.IGNORECASE)

_LINE_START = re.compile(r"\s*(>|[#+=-]+(\s|$))")


def title(model: str) -> str:
    """``inception_v3+tta`` → ``InceptionV3, with mirror image``."""
    name, _, extra = model.partition("+")
    text = MODEL_TITLES.get(name, visible(name))
    return f"{text}, with mirror image" if extra == "tta" else text


def workers_words(facts: Model) -> str:
    """Whether a training's bits depend on the number of workers; empty where that is not known."""
    if facts.reproducible is False:
        reason = f": {facts.varies}" if facts.varies else ""
        return f"depends on the number of workers{reason}"
    return "the same bits on any number of workers" if facts.reproducible else ""


def redacted(value: Any) -> Any:
    """``value`` (JSON-like) without the user information and queries of URIs: keys hide there."""
    if isinstance(value, str):
        return _QUERY.sub(r"\1?…", USER_INFO.sub(r"\1", value))
    if isinstance(value, dict):
        return {key: redacted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [redacted(item) for item in value]
    return value


def visible(text: str) -> str:
    """``text`` on one line: control, format and surrogate characters become escapes.

    A newline would break a table; a right-to-left override would show ``gpj.exe`` as ``exe.jpg``.
    """
    return "".join(
        char.encode("unicode_escape").decode()
        if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
        else char
        for char in text
    )


def file_name(uri: str, longest: int = 60) -> str:
    """The last part of a URI, made visible and shortened in its middle."""
    name = visible(uri.rstrip("/").rpartition("/")[2] or uri)
    if len(name) <= longest:
        return name
    half = (longest - 1) // 2
    return f"{name[:half]}…{name[-half:]}"


def markdown(text: str) -> str:
    """``text`` as plain words inside Markdown, in tables too: nothing in it is markup."""
    plain = visible(text).replace("&", "&amp;")
    plain = re.sub(r"<(?=[a-zA-Z/!?])", "&lt;", plain)
    plain = re.sub(r"([\\`*_{}\[\]|~$])", r"\\\1", plain)
    # What only means something at the beginning of a line: headings, lists, quotes, rules.
    plain = re.sub(r"^(\s*)([#+=>-])", r"\1\\\2", plain) if _LINE_START.match(plain) else plain
    plain = re.sub(r"^(\s*\d+)([.)])(?=\s|$)", r"\1\\\2", plain)
    # GitHub makes links of bare addresses and mentions; a word joiner inside stops it.
    return re.sub(r"(://|www\.|@)", lambda found: f"{found[0][0]}\u2060{found[0][1:]}", plain)


class Raw(str):
    """Text that is Markdown already."""

    __slots__ = ()


def code_block(text: str) -> Raw:
    """A fenced block of one line, to be copied as it is; its fence is longer than any inside."""
    line = visible(text)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", line)), default=0))
    return Raw(f"{fence}\n{line}\n{fence}")


def markdown_value(value: object) -> object:
    """What a template's expression puts into a Markdown page."""
    return value if isinstance(value, Raw) else markdown(str(value))


def percent(fraction: float | None, digits: int = 1) -> str:
    """``0.9333`` → ``93.3 %``."""
    return MISSING if fraction is None else f"{100 * fraction:.{digits}f}{NBSP}%"


def percent_range(interval: Any, digits: int = 1) -> str:
    """``(0.89, 0.96)`` → ``89.0–96.0 %``."""
    if interval is None:
        return MISSING
    low, high = interval
    return f"{100 * low:.{digits}f}{DASH}{100 * high:.{digits}f}{NBSP}%"


def number_range(interval: Any, digits: int = 3) -> str:
    """``(0.115, 0.371)`` → ``0.115–0.371``; for numbers that are not negative."""
    if interval is None:
        return MISSING
    return f"{decimal(interval[0], digits)}{DASH}{decimal(interval[1], digits)}"


def points(difference: float, *, sign: bool = False) -> str:
    """A difference of fractions in percentage points: ``0.042`` → ``4.2`` (``+4.2``)."""
    return signed(100 * difference, 1) if sign else decimal(100 * difference, 1)


def decimal(value: float | None, digits: int = 3) -> str:
    """Fixed digits with a true minus sign and never ``−0.0``."""
    if value is None or not math.isfinite(value):
        return MISSING
    text = f"{value:.{digits}f}"
    if text.startswith("-"):
        return text[1:] if not text.strip("-0.") else MINUS + text[1:]
    return text


def signed(value: float, digits: int = 1) -> str:
    text = decimal(value, digits)
    return text if text.startswith(MINUS) or not text.strip("0.") else f"+{text}"


def p_value(p: float) -> str:
    """``p = 0.012``, ``p < 0.001``."""
    if p < 0.001:
        return f"p{NBSP}<{NBSP}0.001"
    if p > 0.995:
        return f"p{NBSP}={NBSP}1"
    return f"p{NBSP}={NBSP}{p:.3f}" if p < 0.0995 else f"p{NBSP}={NBSP}{p:.2f}"


def count(value: float | None) -> str:
    """``23566849`` → ``23 566 849`` with narrow spaces."""
    return MISSING if value is None else f"{value:,.0f}".replace(",", THIN)


def millions(value: float | None) -> str:
    if value is None:
        return MISSING
    return f"{value / 1e6:.1f}{NBSP}M" if value >= 1e5 else count(value)


def megabytes(value: float | None) -> str:
    """Bytes in decimal megabytes or gigabytes, as file managers count."""
    if value is None:
        return MISSING
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= unit:
            return f"{significant(value / unit)}{NBSP}{name}"
    return f"{value:.0f}{NBSP}bytes"


def significant(value: float | None, digits: int = 3) -> str:
    """About ``digits`` significant digits, never an exponent: ``4.57``, ``45.7``, ``457``."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return count(value) if abs(value) >= 1e4 else decimal(value, min(places, 6))


def duration(seconds: float | None) -> str:
    """``42 s``, ``11.2 min``, ``1 h 05 min``."""
    if seconds is None:
        return MISSING
    if seconds < 99.5:
        return f"{seconds:.0f}{NBSP}s"
    if seconds < 3570:
        return f"{seconds / 60:.1f}{NBSP}min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours}{NBSP}h{NBSP}{minutes:02d}{NBSP}min"


def listed(names: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def plural(number: int, noun: str, many: str | None = None) -> str:
    """``1 photo``, ``2 400 photos``."""
    return f"{count(number)}{NBSP}{noun if number == 1 else many or noun + 's'}"
