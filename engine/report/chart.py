"""A chart of figures with their intervals as SVG inside the page: a point tells its numbers, and leads to its responses."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

from engine.display.numbers import estimate
from engine.display.table import Row

LEFT, RIGHT, ROW, TOP, WIDTH = 210, 24, 22, 34, 760
APART = 12  # between groups
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Point:
    """An estimate with its name; `series` colours it, `link` is a place on the page. A group stands apart from the one before."""

    label: str
    figure: Row
    series: int
    link: str = ""
    group: str = ""


def dots(points: Sequence[Point], series: Sequence[str], title: str) -> str:
    """A row a point, its interval as a line, on an axis from 0 to 1. Text is escaped; nothing outside is asked for."""
    drawn = [point for point in points if point.figure.get("value") is not None]
    tops = _tops(drawn)
    height = round((tops[-1] if tops else TOP) + ROW + 26)
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{html.escape(title)}">',
        *_axis(height),
        *_legend(series),
    ]
    parts += [_point(point, top + ROW / 2) for point, top in zip(drawn, tops, strict=True)]
    return "\n".join([*parts, "</svg>"])


def _tops(points: Sequence[Point]) -> list[float]:
    """Where each row begins."""
    tops, y = [], float(TOP)
    for before, point in zip([None, *points], points, strict=False):
        y += APART if before is not None and before.group != point.group else 0
        tops.append(y)
        y += ROW
    return tops


def _axis(height: int) -> list[str]:
    lines = []
    for tick in TICKS:
        x = _x(tick)
        lines.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{height - 22}"/>')
        lines.append(f'<text class="tick" x="{x:.1f}" y="{height - 8}" text-anchor="middle">{tick:g}</text>')
    return lines


def _legend(series: Sequence[str]) -> list[str]:
    parts, x = [], float(LEFT)
    for number, name in enumerate(series):
        parts.append(f'<circle class="s{number}" cx="{x:.0f}" cy="14" r="5"/>')
        parts.append(f'<text class="label" x="{x + 10:.0f}" y="18">{html.escape(name)}</text>')
        x += 28 + 7.2 * len(name)
    return parts


def _point(point: Point, y: float) -> str:
    figure = point.figure
    low, high = (figure["value"] if figure[side] is None else figure[side] for side in ("low", "high"))
    said = html.escape(f"{point.label}: {estimate(figure)}, n {figure['n']}")
    body = (
        f"<title>{said}</title>"
        f'<rect class="hit" x="0" y="{y - ROW / 2:.1f}" width="{WIDTH}" height="{ROW}"/>'
        f'<text class="label" x="{LEFT - 12}" y="{y + 4:.1f}" text-anchor="end">{html.escape(point.label)}</text>'
        f'<line class="bar s{point.series}" x1="{_x(low):.1f}" x2="{_x(high):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<circle class="s{point.series}" cx="{_x(figure["value"]):.1f}" cy="{y:.1f}" r="5"/>'
    )
    return f'<a href="{html.escape(point.link)}">{body}</a>' if point.link else f"<g>{body}</g>"


def _x(value: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * min(max(value, 0.0), 1.0)
