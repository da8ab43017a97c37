"""Small plots as SVG text: bars in groups, and lines."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from xml.sax.saxutils import escape, quoteattr

COLOURS = ("#2563a8", "#d97706", "#2f855a", "#9b2c5a", "#6b5bb5", "#7a7a7a", "#0e8a94", "#b7410e")
WIDTH, HEIGHT = 720, 380
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 46, 74
LEGEND_ROW, LETTER = 20, 6.6
PLOT_WIDTH, PLOT_HEIGHT = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

Series = Sequence[tuple[str, Sequence[float | None]]]
"""Each with a name and one value per group; None leaves a gap."""


def bars(title: str, unit: str, groups: Sequence[str], series: Series) -> str:
    """Bars from zero, side by side in each group."""
    top = _nice_top(max((value or 0 for _, values in series for value in values), default=0))
    parts = [_value_axis(unit, [top * i / 4 for i in range(5)], lambda value: value / top)]
    group_width = PLOT_WIDTH / max(1, len(groups))
    bar_width = group_width * 0.8 / max(1, len(series))
    for at, (name, values) in enumerate(series):
        for group, value in enumerate(values):
            if value is None:
                continue
            height = PLOT_HEIGHT * value / top
            left = LEFT + group_width * (group + 0.1) + bar_width * at
            told = f"{name}, {groups[group]}: {number(value)} {unit}"
            parts.append(
                f'<rect x="{left:.1f}" y="{TOP + PLOT_HEIGHT - height:.1f}" width='
                f'"{bar_width * 0.94:.1f}" height="{height:.1f}" fill="{_colour(at)}">'
                f"<title>{escape(told)}</title></rect>"
            )
    for group, name in enumerate(groups):
        middle = LEFT + group_width * (group + 0.5)
        parts.append(_text(middle, TOP + PLOT_HEIGHT + 18, name, "middle"))
    return _drawing(title, parts, [name for name, _ in series])


def lines(
    title: str,
    x_unit: str,
    unit: str,
    series: Sequence[tuple[str, Sequence[tuple[float, float]]]],
) -> str:
    """Lines through points, both axes logarithmic; all values are above zero."""
    points = [point for _, line in series for point in line]
    x_ticks = _decades([x for x, _ in points])
    y_ticks = _decades([y for _, y in points])

    def place(value: float, ticks: Sequence[float]) -> float:
        return math.log(value / ticks[0]) / math.log(ticks[-1] / ticks[0])

    parts = [_value_axis(unit, y_ticks, lambda value: place(value, y_ticks))]
    for tick in x_ticks:
        x = LEFT + PLOT_WIDTH * place(tick, x_ticks)
        parts.append(_text(x, TOP + PLOT_HEIGHT + 18, number(tick), "middle"))
    parts.append(_text(LEFT + PLOT_WIDTH / 2, TOP + PLOT_HEIGHT + 34, x_unit, "middle"))
    for at, (name, line) in enumerate(series):
        path = " ".join(
            f"{LEFT + PLOT_WIDTH * place(x, x_ticks):.1f},"
            f"{TOP + PLOT_HEIGHT * (1 - place(y, y_ticks)):.1f}"
            for x, y in line
        )
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{_colour(at)}" stroke-width="2">'
            f"<title>{escape(name)}</title></polyline>"
        )
    return _drawing(title, parts, [name for name, _ in series])


def number(value: float) -> str:
    """Three digits, or all before the point, with thousands marked."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _nice_top(value: float) -> float:
    """Return a round number at or above the value."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 6, 8, 10) if step * power >= value)


def _decades(values: Sequence[float]) -> list[float]:
    """Return the powers of ten around all values, two at least."""
    low = math.floor(math.log10(min(values)))
    high = max(low + 1, math.ceil(math.log10(max(values))))
    return [10.0**power for power in range(low, high + 1)]


def _value_axis(unit: str, ticks: Sequence[float], place: Callable[[float], float]) -> str:
    parts = [_text(LEFT, TOP - 14, unit, "end")]
    for tick in ticks:
        y = TOP + PLOT_HEIGHT * (1 - place(tick))
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 6, y + 4, number(tick), "end"))
    return "".join(parts)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _colour(at: int) -> str:
    return COLOURS[at % len(COLOURS)]


def _drawing(title: str, parts: Sequence[str], names: Sequence[str]) -> str:
    legend = []
    slot = max((len(name) for name in names), default=0) * LETTER + 32
    columns = max(1, min(len(names), int(PLOT_WIDTH / slot)))
    for at, name in enumerate(names):
        x = LEFT + PLOT_WIDTH / columns * (at % columns)
        y = HEIGHT - LEGEND_ROW + LEGEND_ROW * (at // columns)
        legend.append(f'<rect x="{x:.1f}" y="{y}" width="11" height="11" fill="{_colour(at)}"/>')
        legend.append(_text(x + 16, y + 10, name, "start"))
    height = HEIGHT + LEGEND_ROW * (max(0, len(names) - 1) // columns)
    heading = f'<text x="{WIDTH / 2}" y="18" class="title">{escape(title)}</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"'
        f" aria-label={quoteattr(title)}><style>text{{font:12px sans-serif;fill:#333}}"
        ".title{font-size:14px;font-weight:bold;text-anchor:middle}</style>"
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>'
        f"{heading}{''.join(parts)}{''.join(legend)}</svg>\n"
    )
