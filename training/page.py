"""An evaluation in; a table for a terminal, one HTML page, and the folder that holds all of it, out.

Enters: an `Evaluation`. Leaves: text, and `OUT` with metrics.json, the plots and evaluation.html, written whole. The
page refers to nothing outside itself and holds no script. Never computes a figure.
"""

import json
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from pacs_agent.evaluation.metrics import FIGURES, OVERALL, Figure, Group
from training.anchors import ANCHORS, Anchor, Level
from training.errors import TrainingError
from training.evaluate import LEVELS, Evaluation, fewer_resamples, metrics_json, unreadable_names
from training.plots import plots

METRICS_NAME: Final = "metrics.json"
PAGE_NAME: Final = "evaluation.html"
NOT_TO_BE_COMPARED: Final = (
    "Image level and study level are different questions, and so are MURA's valid and its hidden test set. "
    "The two are not to be compared: each anchor stands at its own level."
)
LEARNT_FROM: Final = "The bundle was fitted on these very images: the figures are better than it is on any others."
UNTRAINED: Final = "The bundle is not trained: the daemon says undetermined of every study."
MAX_UNREADABLE: Final = 50
_PLOT_TITLES: Final = {
    "roc": "ROC: what other thresholds would give",
    "reliability": "Reliability: of those called 70 %, are 70 in 100 abnormal?",
    "confusion": "Confusion at the bundle’s thresholds",
    "kappa": "Cohen’s kappa by part, beside the anchors of the same level",
}


def prepare(out: Path) -> None:
    """Refuse a place that the evaluation could not be written to, before the work.

    Raises:
        TrainingError: it is there and not an empty folder.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise TrainingError(f"{out}: is there already; name a folder that is not there yet, or an empty one")


def write_evaluation(evaluation: Evaluation, out: Path) -> None:
    """Write the folder: it is there with all its files, or not at all.

    Raises:
        TrainingError: it is there already or cannot be written.
    """
    prepare(out)
    out = out.absolute()
    light, dark = plots(evaluation), plots(evaluation, dark=True)
    text = json.dumps(metrics_json(evaluation), indent=2, ensure_ascii=False, allow_nan=False)
    files = {
        METRICS_NAME: f"{text}\n".encode(),
        PAGE_NAME: page(evaluation, light, dark).encode(),
        **{f"{name}.png": content for name, content in light.items()},
    }
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
            inner = Path(temporary) / "evaluation"
            inner.mkdir()
            for name, content in files.items():
                (inner / name).write_bytes(content)
            inner.rename(out)  # replaces an empty folder, fails on any other
    except OSError as error:
        raise TrainingError(f"{out}: cannot be written: {error.strerror}") from error


def table(evaluation: Evaluation) -> str:
    """The figures for a terminal: each level with its anchors, at the bundle's thresholds and overall at 0.5."""
    lines = [_heading(evaluation), ""]
    for level in LEVELS:
        rows = [[level, "n", *FIGURES]]
        rows += [[name, str(group.n), *_short_cells(group)] for name, group in evaluation.groups[level].items()]
        half = evaluation.at_half[level][OVERALL]
        rows.append([f"{OVERALL} at 0.5", str(half.n), *_short_cells(half)])
        lines += [*_aligned(rows), ""]
        rows = [[f"anchors, {level} level", "accuracy", "kappa", "auroc", "data"]]
        rows += [[anchor.who, *_published(anchor), anchor.data] for anchor in ANCHORS if anchor.level == level]
        lines += [*_aligned(rows), ""]
    for what, values in evaluation.lesions.items():
        rows = [[f"image-level AUROC by {what}", "abnormal", "auroc"]]
        rows += [[name, str(count), _cell(auroc)] for name, (count, auroc) in values.items()]
        lines += [*_aligned(rows), ""]
    lines += ["value [95 % patient bootstrap]; the other intervals are in metrics.json and on the page"]
    lines += [NOT_TO_BE_COMPARED, _guard(evaluation), evaluation.verdict.why]
    if not evaluation.bundle.manifest.trained:
        lines.append(UNTRAINED)
    if evaluation.learnt_from:
        lines.append(LEARNT_FROM)
    if evaluation.unreadable:
        lines.append(f"{len(evaluation.unreadable)} of {evaluation.listed} images could not be read and are left out:")
        lines += [f"  {name}: {reason}" for name, reason in unreadable_names(evaluation)]
    return "\n".join(lines)


def page(evaluation: Evaluation, light: Mapping[str, bytes], dark: Mapping[str, bytes]) -> str:
    """The HTML page.

    Args:
        evaluation: what it tells.
        light: PNGs of `plots`, for paper and light screens.
        dark: the same for dark screens.
    """
    manifest = evaluation.bundle.manifest
    kind = {True: "yes", False: "no", None: "unasked"}[evaluation.verdict.beaten]
    body = [
        f"<h1>{escape(manifest.name)} {escape(manifest.version)}</h1>",
        f"<p class=lead>{escape(_heading(evaluation))}</p>",
        f"<p class='verdict {kind}'>{escape(evaluation.verdict.why)}</p>",
        f"<p>{escape(_guard(evaluation))} Intended use: {escape(manifest.intended_use)}.</p>",
        f"<p>{escape(NOT_TO_BE_COMPARED)}</p>",
        "" if manifest.trained else f"<p class='verdict no'>{escape(UNTRAINED)}</p>",
        f"<p class='verdict no'>{escape(LEARNT_FROM)}</p>" if evaluation.learnt_from else "",
    ]
    for level in LEVELS:
        body += [
            f"<h2>{level.capitalize()} level</h2>",
            _html_groups(evaluation.groups[level]),
            "<h3>The same at 0.5</h3>",
            _html_groups(evaluation.at_half[level]),
            "<h3>Anchors of this level</h3>",
            _html_anchors(level),
        ]
    for name, title in _PLOT_TITLES.items():
        body.append(
            f"<figure><figcaption>{escape(title)}</figcaption><picture>"
            f"<source srcset='{_data_uri(dark[name])}' media='screen and (prefers-color-scheme: dark)'>"
            f"<img src='{_data_uri(light[name])}' alt='{escape(title, quote=True)}'></picture></figure>"
        )
    for what, values in evaluation.lesions.items():
        rows = [[name, str(count), _html_cell(auroc)] for name, (count, auroc) in values.items()]
        body += [
            f"<h2>AUROC by {what}</h2><p>Image level, abnormal pictures of each {what} against all normal ones.</p>",
            _html_table([what, "abnormal images", "AUROC"], rows),
        ]
    body += ["<h2>How to read it</h2>", *(f"<p>{escape(text)}</p>" for text in _reading(evaluation))]
    if evaluation.unreadable:
        names = list(unreadable_names(evaluation))
        body.append(f"<h2>Left out: {len(names)} images that could not be read</h2>")
        body.append(_html_table(["image", "reason"], [[escape(n), escape(r)] for n, r in names[:MAX_UNREADABLE]]))
        if len(names) > MAX_UNREADABLE:
            body.append(f"<p>The others are in {METRICS_NAME}.</p>")
    body += ["<h2>Where it comes from</h2>", _html_table(["what", "is"], _provenance(evaluation))]
    told = json.dumps(manifest.provenance, indent=2, ensure_ascii=False)
    body.append(f"<details><summary>What the bundle says of itself</summary><pre>{escape(told)}</pre></details>")
    return _PAGE.replace("@TITLE@", escape(f"{manifest.name} {manifest.version}")).replace("@BODY@", "\n".join(body))


def _heading(evaluation: Evaluation) -> str:
    manifest = evaluation.bundle.manifest
    what = "MURA's official valid" if evaluation.official else f"split {evaluation.split}"
    return (
        f"{manifest.name} {manifest.version} on {what}{', phantoms' if evaluation.phantoms else ''}: "
        f"{len(evaluation.scored['image'].labels)} images, {len(evaluation.scored['study'].labels)} studies, "
        f"{evaluation.patients} patients"
    )


def _guard(evaluation: Evaluation) -> str:
    if evaluation.guard is None:
        return "The bundle has no guard."
    return f"The guard flags {evaluation.guard:.2%} of the images; the figures are of all of them."


def _reading(evaluation: Evaluation) -> Iterable[str]:
    yield (
        "An image is judged as the daemon judges a study of that one image; a study by the mean of its images' "
        "probabilities, calibrated as the bundle says; abnormal when greater than the threshold of its part."
    )
    yield (
        f"Intervals: 95 %, percentiles of {evaluation.resamples} resamples of patients, all studies of a patient in "
        "all parts going along; AUROC and kappa of a resample of one class are undefined and left out."
    )
    yield (
        "ECE: 15 equally wide bins. It cannot be below zero, so few things make it larger: its interval lies high, and "
        "may even leave the value below it."
    )
    if fewer := fewer_resamples(evaluation):
        told = ", ".join(f"{row['level']} {row['group']} {row['figure']} {row['resamples']}" for row in fewer[:12])
        yield f"Fewer resamples than {evaluation.resamples} define: {told}{' and others' if len(fewer) > 12 else ''}."


def _provenance(evaluation: Evaluation) -> list[list[str]]:
    manifest = evaluation.bundle.manifest
    calibration, thresholds = manifest.calibration, manifest.thresholds
    rows = {
        "weights, SHA-256": manifest.weights_sha256,
        "trained": "yes" if manifest.trained else "no",
        "calibration": f"temperature {calibration.temperature:.4g}, bias {calibration.bias:.4g}"
        if calibration
        else "none",
        "thresholds": ", ".join(
            f"{part} {value:.4g}" for part, value in {"default": thresholds.default, **thresholds.per_part}.items()
        ),
        "gating": manifest.gating,
        "split": evaluation.split,
        "images listed, read": f"{evaluation.listed}, {len(evaluation.scored['image'].labels)}",
        "seed of the bootstrap": str(evaluation.seed),
    }
    return [[escape(name), escape(value)] for name, value in rows.items()]


def _cell(figure: Figure) -> str:
    if figure.value is None:
        return "–"
    if figure.low is None or figure.high is None:
        return f"{figure.value:.3f}"
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"


def _short_cells(group: Group) -> list[str]:
    """With intervals where a terminal has room for them."""
    wide = ("accuracy", "kappa", "auroc")
    cells = {name: _cell(figure) for name, figure in group.figures.items()}
    return [cells[name] if name in wide else cells[name].partition(" ")[0] for name in FIGURES]


def _published(anchor: Anchor) -> list[str]:
    return ["–" if value is None else f"{value:.4g}" for value in (anchor.accuracy, anchor.kappa, anchor.auroc)]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    columns = max(map(len, rows))
    full = [[*row, *[""] * (columns - len(row))] for row in rows]
    widths = [max(len(row[column]) for row in full) for column in range(columns)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in full]


def _html_cell(figure: Figure) -> str:
    value, _, interval = _cell(figure).partition(" ")
    return f"{value}<small>{interval.strip('[]').replace(', ', '–')}</small>" if interval else value


def _html_groups(groups: Mapping[str, Group]) -> str:
    rows = [
        [escape(name), str(group.n), *(_html_cell(group.figures[figure]) for figure in FIGURES)]
        for name, group in groups.items()
    ]
    return _html_table(["", "n", *FIGURES], rows)


def _html_anchors(level: Level) -> str:
    rows = [[escape(anchor.who), *_published(anchor), anchor.data] for anchor in ANCHORS if anchor.level == level]
    return _html_table(["who", "accuracy", "kappa", "auroc", "data"], rows)


def _html_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are HTML already."""
    cells = "".join(f"<th>{name}</th>" for name in head)
    lines = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class=wide><table><thead><tr>{cells}</tr></thead><tbody>\n{lines}\n</tbody></table></div>"


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{b64encode(png).decode()}"


_PAGE: Final = """<!doctype html>
<html lang=en>
<meta charset=utf-8>
<meta name=viewport content="width=device-width, initial-scale=1">
<meta name=color-scheme content="light dark">
<title>@TITLE@: evaluation</title>
<style>
:root { --paper: #fff; --text: #1b1f24; --faint: #c9ced6; --soft: #f3f5f8; --quiet: #5b6570; --line: #0b5fa5; }
@media screen and (prefers-color-scheme: dark) {
  :root { --paper: #15191f; --text: #e8ebef; --faint: #454c57; --soft: #1e242c; --quiet: #a4adb8; --line: #6db3f2; }
}
body { background: var(--paper); color: var(--text); font: 16px/1.5 system-ui, sans-serif; max-width: 68rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; } h3 { margin: 1.5rem 0 .3rem; font-size: 1rem; }
.lead { font-size: 1.1rem; }
.verdict { background: var(--soft); border-left: .4rem solid var(--faint); padding: .6rem 1rem; }
.verdict.yes { border-color: #009e73; } .verdict.no { border-color: #d55e00; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--faint); vertical-align: top; }
td { overflow-wrap: anywhere; } td:first-child { white-space: nowrap; }
tbody tr:first-child td { border-top: 2px solid var(--faint); }
small { display: block; color: var(--quiet); white-space: nowrap; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; }
figure { margin: 2rem 0; } figcaption { font-weight: 600; margin-bottom: .4rem; } img { max-width: 100%; height: auto; }
@media print {
  body { font-size: 10pt; margin: 0; max-width: none; } table { font-size: 8pt; } h2 { margin-top: 1.2rem; }
  figure, tr, .verdict { break-inside: avoid; } h2, h3 { break-after: avoid; } .wide { overflow: visible; }
  @page { margin: 14mm; }
}
</style>
<body>
@BODY@
</body>
</html>
"""
