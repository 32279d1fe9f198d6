"""An evaluation in, four plots out as PNG: ROC, reliability, confusion, kappa by part against the anchors.

Enters: an `Evaluation`. Leaves: bytes, the same for the same figures. Each plot has an image-level and a study-level
panel, because the two are not to be compared. Never writes a file, never computes a figure of its own.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pacs_agent.evaluation.metrics import OVERALL, reliability, roc_curve
from training.anchors import ANCHORS, Level
from training.evaluate import LEVELS, Evaluation

_PART_COLOURS: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8f8f00")
"""Okabe and Ito's, told apart by colour-blind eyes; the last darkened to be seen on white."""
_ANCHOR_COLOURS: Final = ("#d55e00", "#cc79a7", "#009e73", "#e69f00")


@dataclass(frozen=True, slots=True)
class _Ink:
    paper: str
    text: str
    line: str
    faint: str


_LIGHT: Final = _Ink("#ffffff", "#1b1f24", "#0b5fa5", "#c9ced6")
_DARK: Final = _Ink("#15191f", "#e8ebef", "#6db3f2", "#454c57")


def plots(evaluation: Evaluation, *, dark: bool = False) -> dict[str, bytes]:
    """The plots by name (`roc`, `reliability`, `confusion`, `kappa`), each a PNG.

    Args:
        evaluation: what is shown.
        dark: for a dark page; the figures are the same.
    """
    ink = _DARK if dark else _LIGHT
    return {name: _drawn(draw, evaluation, ink) for name, draw in _PLOTS.items()}


def _drawn(draw: Callable[[Axes, Evaluation, Level, _Ink], None], evaluation: Evaluation, ink: _Ink) -> bytes:
    style: dict[Any, Any] = {
        "axes.edgecolor": ink.faint,
        "axes.facecolor": ink.paper,
        "axes.labelcolor": ink.text,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "figure.facecolor": ink.paper,
        "font.family": "DejaVu Sans",
        "font.size": 9.5,
        "legend.frameon": False,
        "text.color": ink.text,
        "xtick.color": ink.text,
        "ytick.color": ink.text,
    }
    with rc_context(style):
        figure = Figure(figsize=(10.5, 4.9), layout="constrained")
        FigureCanvasAgg(figure)
        for axes, level in zip(figure.subplots(1, 2), LEVELS, strict=True):
            n = len(evaluation.scored[level].labels)
            axes.set_title(f"{level} level · {n} {'images' if level == 'image' else 'studies'}", loc="left", pad=10)
            draw(axes, evaluation, level, ink)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return buffer.getvalue()


def _roc(axes: Axes, evaluation: Evaluation, level: Level, ink: _Ink) -> None:
    scored, groups = evaluation.scored[level], evaluation.groups[level]
    for (name, group), colour in zip(
        [item for item in groups.items() if item[0] != OVERALL], _PART_COLOURS, strict=False
    ):
        axes.plot(
            *roc_curve(scored.of(scored.parts == name)),
            color=colour,
            linewidth=1,
            label=f"{name} {_number(group.figures['auroc'].value)}",
        )
    overall = groups[OVERALL].figures
    label = f"overall {_number(overall['auroc'].value)}"
    axes.plot(*roc_curve(scored), color=ink.text, linewidth=2.2, label=label)
    sensitivity, specificity = overall["sensitivity"].value, overall["specificity"].value
    if sensitivity is not None and specificity is not None:
        axes.plot(1 - specificity, sensitivity, "o", color=ink.text, markersize=8, label="at the thresholds")
    axes.plot((0, 1), (0, 1), color=ink.faint, linestyle=":", linewidth=1)
    axes.set(xlabel="1 − specificity", ylabel="sensitivity", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.legend(loc="lower right", title="AUROC", fontsize=8.5, alignment="left")


def _reliability(axes: Axes, evaluation: Evaluation, level: Level, ink: _Ink) -> None:
    probability, abnormal, count = reliability(evaluation.scored[level], 10)
    some = count > 0
    edges = np.linspace(0, 1, 11)
    ece = evaluation.groups[level][OVERALL].figures["ece"].value
    axes.bar(edges[:-1], count / count.sum(), 0.1, align="edge", color=ink.faint, label="share of all")
    axes.plot((0, 1), (0, 1), color=ink.text, linestyle=":", linewidth=1, label="perfect")
    # Where a share of few things may lie: one standard error, so that a bin of three is not read as a fault.
    error = np.sqrt(abnormal[some] * (1 - abnormal[some]) / count[some])
    axes.errorbar(
        probability[some], abnormal[some], error, fmt="o-", color=ink.line, linewidth=1.5, capsize=2, clip_on=False,
        label=f"found, ± 1 standard error (ECE {_number(ece)})",
    )  # fmt: skip
    axes.set(xlabel="probability of abnormal", ylabel="share abnormal", xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, fontsize=8.5)


def _confusion(axes: Axes, evaluation: Evaluation, level: Level, ink: _Ink) -> None:
    scored = evaluation.scored[level]
    names = ("normal", "abnormal")
    for row, label in enumerate((False, True)):
        of_label = scored.labels == label
        for column, called in enumerate((False, True)):
            count = int((of_label & (scored.called == called)).sum())
            share = count / max(1, int(of_label.sum()))
            colour = ink.line if label == called else "#d55e00"
            axes.fill_between((column, column + 1), row, row + 1, color=colour, alpha=0.12 + 0.6 * share, linewidth=0)
            axes.text(column + 0.5, row + 0.45, str(count), ha="center", va="center", fontsize=19)
            axes.text(column + 0.5, row + 0.7, f"{share:.1%} of {names[row]}", ha="center", va="center")
    axes.set(xlim=(0, 2), ylim=(2, 0), aspect="equal", xlabel="called", ylabel="labelled")
    axes.set_xticks((0.5, 1.5), names)
    axes.set_yticks((0.5, 1.5), names, rotation=90, va="center")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _kappa(axes: Axes, evaluation: Evaluation, level: Level, ink: _Ink) -> None:
    groups = evaluation.groups[level]
    lowest = 0.0
    for place, (_, group) in enumerate(groups.items()):
        kappa = group.figures["kappa"]
        if kappa.value is None:
            axes.text(place, 0.02, "one class", ha="center", rotation=90, fontsize=8)
            continue
        low, high = (end if end is not None else kappa.value for end in (kappa.low, kappa.high))
        axes.plot((place, place), (low, high), color=ink.line, linewidth=2.2, alpha=0.6, solid_capstyle="butt")
        axes.plot(place, kappa.value, "D" if place == 0 else "o", color=ink.line, markersize=7)
        lowest = min(lowest, low)
    anchors = [anchor for anchor in ANCHORS if anchor.level == level]
    for anchor, colour in zip(anchors, _ANCHOR_COLOURS, strict=False):
        style = "-" if anchor.data == "MURA valid" else "--"
        label = f"{anchor.kappa:.4g} {anchor.who}, {anchor.data}"
        axes.axhline(anchor.kappa, color=colour, linestyle=style, linewidth=1.2, label=label)
    axes.set(
        ylabel="Cohen’s kappa, 95 % interval", ylim=(min(-0.05, lowest - 0.05), 1.02), xlim=(-0.6, len(groups) - 0.4)
    )
    axes.set_xticks(range(len(groups)), list(groups), rotation=35, ha="right", rotation_mode="anchor")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), fontsize=8)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


_PLOTS: Final[Mapping[str, Callable[[Axes, Evaluation, Level, _Ink], Any]]] = MappingProxyType(
    {"roc": _roc, "reliability": _reliability, "confusion": _confusion, "kappa": _kappa}
)
