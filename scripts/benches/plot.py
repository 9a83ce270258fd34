"""A growth drawn as SVG: sizes against seconds on two logarithmic scales, each beside its own n log n."""

import math
from collections.abc import Mapping, Sequence

WIDTH, HEIGHT = 720, 440
LEFT, RIGHT, TOP, BOTTOM = 80, 30, 40, 60
COLOURS = ("#1b5e9b", "#b3541e", "#2d7d46")


def n_log_n(sizes: Sequence[int], taken: Sequence[float]) -> list[float]:
    """What n log n from the first point would give at each size."""
    first = taken[0] / (sizes[0] * math.log(sizes[0]))
    return [first * size * math.log(size) for size in sizes]


def drawn(sizes: Sequence[int], lines: Mapping[str, Sequence[float]]) -> str:
    """The picture: one line and one dashed n log n for each name; sizes and seconds are positive."""
    values = [value for taken in lines.values() for value in (*taken, *n_log_n(sizes, taken))]
    across = _scale(sizes[0], sizes[-1], LEFT, WIDTH - RIGHT)
    low, high = 10 ** math.floor(math.log10(min(values))), 10 ** math.ceil(math.log10(max(values)))
    up = _scale(low, high, HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        "<style>text { font: 13px sans-serif }</style>",
        "<title>Seconds of an import by number of people</title>",
        "<desc>Both scales are logarithmic; dashed: n log n from the smallest size.</desc>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for value in _tens(low, high):
        parts.append(_rule(LEFT, up(value), WIDTH - RIGHT, up(value)))
        parts.append(_word(LEFT - 8, up(value) + 4, f"{value:g} s", "end"))
    for size in sizes:
        parts.append(_rule(across(size), TOP, across(size), HEIGHT - BOTTOM))
        parts.append(_word(across(size), HEIGHT - BOTTOM + 20, f"{size:,}", "middle"))
    parts.append(_word((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, "people in the register", "middle"))
    for place, (name, taken) in enumerate(lines.items()):
        colour = COLOURS[place % len(COLOURS)]
        points = [(across(size), up(value)) for size, value in zip(sizes, taken, strict=True)]
        ideal = [(across(size), up(value)) for size, value in zip(sizes, n_log_n(sizes, taken), strict=True)]
        parts += [_path(ideal, colour, ' stroke-dasharray="5 5" stroke-opacity="0.6"'), _path(points, colour)]
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>' for x, y in points]
        parts.append(f'<text x="{LEFT + 12}" y="{TOP + 18 + 18 * place}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _scale(low: float, high: float, start: float, end: float):  # noqa: ANN202 - a function of one number
    span = math.log(high / low) or 1.0
    return lambda value: start + (end - start) * math.log(value / low) / span


def _tens(low: float, high: float) -> list[float]:
    return [low * 10**power for power in range(round(math.log10(high / low)) + 1)]


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#ddd"/>'


def _word(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#444">{text}</text>'


def _path(points: Sequence[tuple[float, float]], colour: str, more: str = "") -> str:
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="2"{more}/>'
