"""The plots of a site report as SVG: ROC, reliability, sensitivity and specificity with their intervals. Pure.

Enters: a report. Leaves: text to stand in an HTML page: coloured for paper by its own attributes, and for a dark screen
by the page's style, through the classes `stroke-…` and `fill-…`. Never computes a figure, never names a patient.
"""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

import numpy as np

from pacs_agent.evaluation.metrics import Figure, reliability, roc_curve
from pacs_agent.evaluation.site import Cohort, SiteReport

PART_COLOURS: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8f8f00")
"""Okabe and Ito's, told apart by colour-blind eyes; the last darkened to be seen on white."""
_INK: Final = {"text": "#1b1f24", "line": "#0b5fa5", "other": "#d55e00", "faint": "#c9ced6"}
_DOTTED: Final = 'stroke-dasharray="2 4"'
_SIDE: Final = 300  # of a square plot, in units of its own
_LEFT: Final = 58
_TOP: Final = 12
_TICKS: Final = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_ROW: Final = 36  # so that a row's two lines stand nearer to each other than to the next row's


def roc(report: SiteReport) -> str | None:
    """ROC of all, and of each part with an AUROC of its own; None of too few cases."""
    auroc = report.overall.figures["auroc"]
    if auroc is None:
        return None
    marks, legend = [_segment((0, 0), (1, 1), "text", _DOTTED)], [("text", f"overall {_number(auroc)}")]
    parts = [cohort for cohort in report.of("body_part") if cohort.figures["auroc"] is not None]
    for cohort, colour in zip(parts, PART_COLOURS, strict=False):
        curve = roc_curve(report.scored.of(report.scored.parts == cohort.name))
        marks.append(_path(*curve, colour, 1.2))
        legend.append((colour, f"{cohort.name} {_number(cohort.figures['auroc'])}"))
    marks.append(_path(*roc_curve(report.scored), "text", 2.4))
    sensitivity, specificity = (report.overall.figures[name] for name in ("sensitivity", "specificity"))
    if sensitivity and specificity and sensitivity.value is not None and specificity.value is not None:
        x, y = _at(1 - specificity.value, sensitivity.value)
        marks.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" {_fill("text")}/>')
        legend.append(("dot", "at the thresholds"))
    legend.append(("dotted", "chance"))
    return _square("1 − specificity", "sensitivity", marks, _legend("AUROC", legend), "ROC")


def reliability_plot(report: SiteReport) -> str | None:
    """Of those called so likely, how many are abnormal; None of too few cases."""
    ece = report.overall.figures["ece"]
    if ece is None:
        return None
    probability, abnormal, count = reliability(report.scored, 10)
    marks = []
    for index, share in enumerate(count / count.sum()):
        (x, y), (right, bottom) = _at(index / 10, share), _at((index + 1) / 10, 0)
        marks.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{right - x - 1:.1f}" height="{bottom - y:.1f}" {_fill("faint")}/>'
        )
    marks.append(_segment((0, 0), (1, 1), "text", _DOTTED))
    some = count > 0
    # Where a share of few cases may lie: one standard error, so that a bin of three is not read as a fault.
    error = np.sqrt(abnormal[some] * (1 - abnormal[some]) / count[some])
    marks.append(_path(probability[some], abnormal[some], "line", 1.5))
    for x, y, spread in zip(probability[some].tolist(), abnormal[some].tolist(), error.tolist(), strict=True):
        marks.append(_segment((x, max(0.0, y - spread)), (x, min(1.0, y + spread)), "line"))
        cx, cy = _at(x, y)
        marks.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="4" {_fill("line")}/>')
    legend = [
        ("dotted", "perfect"),
        ("line", "found, ± 1 standard"),
        ("", "error"),
        ("bar", "share of all cases"),
    ]
    return _square(
        "probability of abnormal", "share abnormal", marks, _legend(f"ECE {_number(ece)}", legend), "Reliability"
    )


def intervals(cohorts: Sequence[Cohort], title: str) -> str:
    """Sensitivity and specificity with their intervals, a row for each cohort; of too few cases it says so."""
    width, top = 670, 34
    bottom = top + _ROW * len(cohorts)
    start, scale = 200.0, 400.0
    marks = []
    for tick in _TICKS:
        x = f"{start + scale * tick:.1f}"
        marks.append(f'<line x1="{x}" y1="{top - 6}" x2="{x}" y2="{bottom}" {_stroke("faint")}/>')
        marks.append(f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>')
    for row, cohort in enumerate(cohorts):
        y = top + _ROW * row + _ROW / 2
        marks.append(f'<text x="{start - 12}" y="{y + 4:.1f}" text-anchor="end">{escape(_short(cohort.name))}</text>')
        for name, colour, offset in (("sensitivity", "line", -5.0), ("specificity", "other", 5.0)):
            figure = cohort.figures[name]
            if figure is None or figure.value is None or figure.low is None or figure.high is None:
                few = f"{name}: too few ({cohort.basis[name]} patients)"
                marks.append(f'<text x="{start + 6}" y="{y + offset + 4:.1f}" font-size="11">{few}</text>')
                continue
            low, value, high = (start + scale * each for each in (figure.low, figure.value, figure.high))
            line_y = f"{y + offset:.1f}"
            marks.append(
                f'<line x1="{low:.1f}" y1="{line_y}" x2="{high:.1f}" y2="{line_y}" {_stroke(colour)} stroke-width="3"/>'
                f'<circle cx="{value:.1f}" cy="{line_y}" r="4.5" {_fill(colour)}/>'
            )
    marks.append(
        f'<circle cx="{start}" cy="12" r="4.5" {_fill("line")}/><text x="{start + 10}" y="16">sensitivity</text>'
        f'<circle cx="{start + 120}" cy="12" r="4.5" {_fill("other")}/>'
        f'<text x="{start + 130}" y="16">specificity</text>'
    )
    return _svg(width, bottom + 26, marks, title)


def _stroke(ink: str) -> str:
    """A line's colour: one of the page's, or its own."""
    return f'stroke="{_INK[ink]}" class="stroke-{ink}"' if ink in _INK else f'stroke="{ink}"'


def _fill(ink: str) -> str:
    return f'fill="{_INK[ink]}" class="fill-{ink}"'


def _short(name: str) -> str:
    return name if len(name) <= 20 else name[:19] + "…"


def _at(x: float, y: float) -> tuple[float, float]:
    return _LEFT + _SIDE * x, _TOP + _SIDE * (1 - y)


def _segment(start: tuple[float, float], end: tuple[float, float], ink: str, more: str = "") -> str:
    (x1, y1), (x2, y2) = _at(*start), _at(*end)
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {_stroke(ink)} {more}/>'


def _path(xs: Iterable[float], ys: Iterable[float], colour: str, width: float) -> str:
    points = " ".join("{:.1f},{:.1f}".format(*_at(float(x), float(y))) for x, y in zip(xs, ys, strict=True))
    return f'<polyline points="{points}" fill="none" {_stroke(colour)} stroke-width="{width}"/>'


def _legend(title: str, entries: Sequence[tuple[str, str]]) -> list[str]:
    x, y = _LEFT + _SIDE + 24, _TOP + 14
    marks = [f'<text x="{x}" y="{y}" font-weight="600">{escape(title)}</text>']
    for style, text in entries:
        y += 20
        if style == "dot":
            marks.append(f'<circle cx="{x + 9}" cy="{y - 4}" r="5" {_fill("text")}/>')
        elif style == "bar":
            marks.append(f'<rect x="{x}" y="{y - 11}" width="18" height="11" {_fill("faint")}/>')
        elif style == "dotted":
            marks.append(f'<line x1="{x}" y1="{y - 4}" x2="{x + 18}" y2="{y - 4}" {_stroke("text")} {_DOTTED}/>')
        elif style:
            marks.append(
                f'<line x1="{x}" y1="{y - 4}" x2="{x + 18}" y2="{y - 4}" {_stroke(style)} stroke-width="2.4"/>'
            )
        marks.append(f'<text x="{x + 26}" y="{y}">{escape(text)}</text>')
    return marks


def _square(x_label: str, y_label: str, marks: Sequence[str], legend: Sequence[str], title: str) -> str:
    bottom, middle = _TOP + _SIDE, _TOP + _SIDE / 2
    axes = [f'<rect x="{_LEFT}" y="{_TOP}" width="{_SIDE}" height="{_SIDE}" fill="none" {_stroke("faint")}/>']
    for tick in _TICKS:
        x, y = _at(tick, tick)
        axes.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{tick:g}</text>')
        axes.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    axes.append(f'<text x="{_LEFT + _SIDE / 2}" y="{bottom + 40}" text-anchor="middle">{x_label}</text>')
    axes.append(f'<text x="16" y="{middle}" text-anchor="middle" transform="rotate(-90 16 {middle})">{y_label}</text>')
    return _svg(_LEFT + _SIDE + 220, bottom + 50, [*axes, *marks, *legend], title)


def _svg(width: int, height: int, marks: Sequence[str], title: str) -> str:
    body = "\n".join(marks)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="13" fill="{_INK["text"]}" class="fill-text" '
        f'role="img" aria-label="{escape(title, quote=True)}">\n{body}\n</svg>'
    )


def _number(figure: Figure | None) -> str:
    return "–" if figure is None or figure.value is None else f"{figure.value:.3f}"
