"""A small inline-SVG plot: scales, ticks, lines, points with intervals.

Own SVG and not matplotlib's because colours come from the page's style sheet (dark mode, print),
text stays text, and a chart is two kilobytes. Every text is escaped; coordinates have one decimal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from markupsafe import Markup, escape

from catdog.report.wording import visible

#: Drawing units; charts are shown at about this many CSS pixels, so text keeps its size.
WIDTH, HEIGHT = 360, 236
LEFT, RIGHT, TOP, BOTTOM = 50, 12, 14, 40
#: Marker of a series beside its colour, for who cannot tell the colours apart.
MARKERS = ("circle", "square", "triangle", "diamond", "cross")

Point = tuple[float, float]


def trusted(markup: str) -> Markup:
    """Markup made here from numbers, our own class names and escaped text, and nothing else."""
    return Markup(markup)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers within [low, high], about so many, steps of 1, 2, 2.5 or 5 times 10ⁿ."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(step * i, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def percent_tick(value: float) -> str:
    """A share as a tick of an axis in percent."""
    return f"{100 * value:g}"


class Plot:
    """Collects elements in data coordinates and gives an ``<svg>``."""

    def __init__(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        *,
        log_x: bool = False,
        height: int = HEIGHT,
    ) -> None:
        self.x_range, self.y_range, self.log_x, self.height = x, y, log_x, height
        self.parts: list[str] = []

    def x(self, value: float) -> float:
        low, high = self.x_range
        if self.log_x:
            value, low, high = math.log(value), math.log(low), math.log(high)
        share = (value - low) / (high - low) if high > low else 0.5
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        low, high = self.y_range
        share = (value - low) / (high - low) if high > low else 0.5
        return round(self.height - BOTTOM - share * (self.height - TOP - BOTTOM), 1)

    def x_axis(
        self,
        title: str,
        at: Iterable[float],
        form: Callable[[float], str] = "{:g}".format,
    ) -> None:
        bottom = self.height - BOTTOM
        for value in at:
            self.text(self.x(value), bottom + 15, form(value), "middle")
        self.text((LEFT + WIDTH - RIGHT) / 2, self.height - 6, title, "middle", "axis-title")
        self.parts.append(
            f'<path class="axis" d="M{LEFT} {bottom}H{WIDTH - RIGHT}"/>',
        )

    def y_axis(
        self, title: str, at: Iterable[float], form: Callable[[float], str] = "{:g}".format
    ) -> None:
        """Grid lines with their values; the title stands on its side."""
        for value in at:
            height = self.y(value)
            self.parts.append(f'<path class="grid" d="M{LEFT} {height}H{WIDTH - RIGHT}"/>')
            self.text(LEFT - 6, height + 4, form(value), "end")
        middle = round((TOP + self.height - BOTTOM) / 2, 1)
        self.parts.append(
            f'<text class="axis-title" text-anchor="middle" '
            f'transform="translate(11 {middle}) rotate(-90)">{escape(visible(title))}</text>'
        )

    def text(self, x: float, y: float, text: str, anchor: str = "start", style: str = "") -> None:
        kind = f' class="{style}"' if style else ""
        self.parts.append(
            f'<text{kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
            f"{escape(visible(text))}</text>"
        )

    def line(self, points: Sequence[Point], style: str) -> None:
        """A line through ``points``; it breaks where a value is missing (NaN)."""
        path, pen = [], "M"
        if len(points) == 1:  # round line ends make it a dot
            points, style = [points[0], points[0]], f"{style} lone"
        for x, y in points:
            if not (math.isfinite(x) and math.isfinite(y)):
                pen = "M"
                continue
            path.append(f"{pen}{self.x(x):g} {self.y(y):g}")
            pen = "L"
        if path:
            self.parts.append(f'<path class="line {style}" d="{"".join(path)}"/>')

    def vertical(self, x: float, style: str) -> None:
        self.parts.append(
            f'<path class="{style}" d="M{self.x(x):g} {TOP}V{self.height - BOTTOM}"/>'
        )

    def band(self, x0: float, x1: float, label: str, style: str) -> None:
        """A shaded stretch of the x-axis with its name at the top where that fits."""
        left, right = self.x(x0), self.x(x1)
        self.parts.append(
            f'<rect class="{style}" x="{left}" y="{TOP}" width="{right - left:.1f}" '
            f'height="{self.height - TOP - BOTTOM}"/>'
        )
        if right - left > 6 * len(label):  # about the width of its letters
            self.text((left + right) / 2, TOP - 3, label, "middle", "phase-name")

    def interval(self, x: float, low: float, high: float, style: str, shift: float = 0) -> None:
        """A vertical interval at ``x``, moved by ``shift`` drawing units."""
        at = round(self.x(x) + shift, 1)
        self.parts.append(f'<path class="whisker {style}" d="M{at} {self.y(low)}V{self.y(high)}"/>')

    def mark(
        self,
        x: float,
        y: float,
        marker: str,
        style: str,
        hint: str = "",
        *,
        shift: float = 0,
        radius: float = 4,
    ) -> None:
        """A marker with a hint for the mouse; ``shift`` and ``radius`` in drawing units."""
        shape = marker_shape(marker, round(self.x(x) + shift, 1), self.y(y), round(radius, 1))
        title = f"<title>{escape(visible(hint))}</title>" if hint else ""
        self.parts.append(f'<path class="mark {style}" d="{shape}">{title}</path>')

    def svg(self, label: str) -> Markup:
        """The chart; ``label`` says in words what it shows, for who cannot see it."""
        return trusted(
            f'<svg class="plot" viewBox="0 0 {WIDTH} {self.height}" role="img" '
            f'aria-label="{escape(visible(label))}">{"".join(self.parts)}</svg>'
        )


def marker_shape(marker: str, x: float, y: float, r: float = 4) -> str:
    """SVG path of a marker centred at (x, y), all of about the same area."""
    if marker == "square":
        return f"M{x - r * 0.9:g} {y - r * 0.9:g}h{1.8 * r:g}v{1.8 * r:g}h{-1.8 * r:g}z"
    if marker == "triangle":
        return f"M{x:g} {y - 1.3 * r:g}l{1.25 * r:g} {2.2 * r:g}h{-2.5 * r:g}z"
    if marker == "diamond":
        d = 1.35 * r
        return f"M{x:g} {y - d:g}l{d:g} {d:g}l{-d:g} {d:g}l{-d:g} {-d:g}z"
    if marker == "cross":
        return f"M{x - r:g} {y - r:g}l{2 * r:g} {2 * r:g}m0 {-2 * r:g}l{-2 * r:g} {2 * r:g}"
    return f"M{x - r:g} {y:g}a{r:g} {r:g} 0 1 0 {2 * r:g} 0a{r:g} {r:g} 0 1 0 {-2 * r:g} 0z"


def strip(
    low: float,
    value: float,
    high: float,
    scale: tuple[float, float],
    style: str,
    *,
    zero: bool = False,
) -> Markup:
    """An interval on a line, for a table's cell: stretched to its width, strokes kept thin.

    Decoration beside its numbers, so hidden from screen readers. ``zero`` draws a line at 0.
    """
    first, last = scale

    def at(number: float) -> float:
        share = (number - first) / (last - first) if last > first else 0.5
        return round(100 * min(1.0, max(0.0, share)), 2)

    mark = f'<path class="zero" d="M{at(0)} 0V16"/>' if zero and first <= 0 <= last else ""
    # A line of no length with round ends is a dot that stretching cannot squash.
    return trusted(
        f'<svg class="strip {style}" viewBox="0 0 100 16" preserveAspectRatio="none" '
        f'aria-hidden="true"><path class="track" d="M0 8H100"/>{mark}'
        f'<path class="range" d="M{at(low)} 8H{at(high)}"/>'
        f'<path class="dot" d="M{at(value)} 8h.01"/></svg>'
    )


def series(index: int) -> str:
    """Classes of the ``index``-th series: five colours, then the same with other dashes."""
    return f"s{index % 5}" + (" again" if index // 5 % 2 else "")


def series_marker(index: int) -> str:
    """With its colour unique among 25 series, which is more than anybody can read."""
    return MARKERS[(index + index // 5) % 5]


def swatch(index: int) -> Markup:
    """Line and marker of a series, for legends and tables."""
    line = f'<path class="line {series(index)}" d="M0 7H22"/>'
    return _swatch(f"{line}{_marker(index)}")


def marker_swatch(index: int) -> Markup:
    """The marker of a series without its line."""
    return _swatch(_marker(index))


def _marker(index: int) -> str:
    shape = marker_shape(series_marker(index), 11, 7)
    return f'<path class="mark {series(index)}" d="{shape}"/>'


def _swatch(parts: str) -> Markup:
    return trusted(f'<svg class="swatch" viewBox="0 0 22 14" aria-hidden="true">{parts}</svg>')
