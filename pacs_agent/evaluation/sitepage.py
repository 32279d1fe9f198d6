"""A site report as one HTML page: tables, plots, how to read them. Pure.

Enters: a report. Leaves: text that refers to nothing outside itself and holds no script. Names no patient and no study:
only counts, figures, parts and stations.
"""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from pacs_agent.evaluation.drawing import intervals, reliability_plot, roc
from pacs_agent.evaluation.metrics import Figure
from pacs_agent.evaluation.site import FEWEST, SITE_FIGURES, Cohort, SiteReport

WARNING: Final = (
    "Research software: not a medical device; its results must not influence care. A site must know whether the model "
    "works on its own pictures before it goes live, and these figures are of no pictures but those that it judged."
)
HOW_TO_READ: Final = (
    "Known: findings of this model of which the site says normal or abnormal. Undetermined: those of them of which the "
    "model says neither. Abnormal and normal: what the site says of the rest, which are the cases of the figures.",
    "A case is one part and side of a study of which the site says normal or abnormal, and the model too. What the "
    "model calls undetermined is in no figure: read the share of it first. A model that says little can look good on "
    "the rest.",
    "Sensitivity: of the abnormal, how many it calls abnormal. Specificity: of the normal, how many it calls normal. "
    "PPV: of those it calls abnormal, how many are; it holds for this mix of cases only. Kappa: agreement beyond "
    "chance. AUROC: how often an abnormal case has a higher probability than a normal one. ECE and Brier: how far the "
    "probabilities are from what is found; smaller is better, and few cases make ECE larger.",
    "Small, or in brackets: 95 % intervals, percentiles of 1,000 resamples of patients, all cases of a patient going "
    "along. Where all or none are right, the exact binomial bound for as many patients.",
    f"Too few: a figure needs {FEWEST} patients of each class that it speaks of; in brackets is how many there are. "
    "Even above that, look at the interval and not at the value.",
    "The cases are those that the site gave a truth for. If they were chosen, so are the figures.",
)

_ABBREVIATIONS: Final = ("ppv", "auroc", "ece")


def figure_cell(cohort: Cohort, name: str) -> str:
    """A figure with its interval, or that there are too few cases."""
    figure = cohort.figures[name]
    if figure is None:
        return f"too few ({cohort.basis[name]})"
    return figure_text(figure)


def figure_text(figure: Figure) -> str:
    """`0.912 [0.870, 0.941]`; a dash where it is undefined."""
    if figure.value is None:
        return "–"
    if figure.low is None or figure.high is None:
        return f"{figure.value:.3f}"
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"


def share(part: int, whole: int) -> str:
    """`12 of 80 (15.0 %)`."""
    return f"{part} of {whole}" + (f" ({part / whole:.1%})".replace("%", " %") if whole else "")


def summary(report: SiteReport) -> list[str]:
    """What was judged, and what was not, in sentences."""
    overall = report.overall
    lines = [
        f"{report.findings} findings of this model; undetermined: {share(report.undetermined, report.findings)}.",
        f"{report.truths} of the site's labels; {overall.known} on findings of this model, of which undetermined: "
        f"{share(overall.undetermined, overall.known)}; {overall.cases} cases with a claim, "
        f"{overall.abnormal} abnormal and {overall.normal} normal.",
    ]
    if report.without_finding:
        told = ", ".join(f"{name} {count}" for name, count in report.without_finding)
        lines.append(f"Labels without a finding of this model, by what became of the study: {told}.")
    if report.contradicted:
        lines.append(f"{report.contradicted} labels contradict each other on one finding and are left out.")
    if all(figure is None for figure in overall.figures.values()):
        lines.append(f"There are too few cases to say anything: every figure needs {FEWEST} patients of a class.")
    return lines


def site_page(report: SiteReport, *, made_at: str, since: str | None) -> str:
    """The page.

    Args:
        report: what it tells.
        made_at: the day, as text.
        since: studies received since; None: all.
    """
    model = report.model
    window = f"studies received since {since}" if since else "all studies"
    body = [
        f"<h1>{escape(model.name)} {escape(model.version)} at this site</h1>",
        f"<p class=lead>{escape(window)} · made {escape(made_at)} · bundle {escape(model.bundle_hash[:12])}</p>",
        f"<p class=verdict>{escape(WARNING)}</p>",
        *(f"<p>{escape(line)}</p>" for line in summary(report)),
        "<h2>By body part</h2>",
        _cohorts("body part", [report.overall, *report.of("body_part")]),
        "<h2>By station</h2>",
        _cohorts("station", [report.overall, *report.of("station")]),
        "<h2>Undetermined, and why</h2>",
    ]
    if report.reasons:
        rows = [[escape(reason), str(count)] for reason, count in report.reasons]
        body += [
            f"<p>{escape(share(report.undetermined, report.findings))} findings, with a truth or without.</p>",
            _table(["reason", "findings"], rows),
        ]
    else:
        body.append("<p>None.</p>")
    body += [
        _figure("ROC: what other thresholds would give", roc(report)),
        _figure("Reliability: of those called 70 %, are 70 in 100 abnormal?", reliability_plot(report)),
    ]
    for by, title in (("body_part", "body part"), ("station", "station")):
        caption = f"Sensitivity and specificity by {title}, 95 % intervals"
        body.append(_figure(caption, intervals([report.overall, *report.of(by)], caption)))
    body += ["<h2>How to read it</h2>", *(f"<p>{escape(text)}</p>" for text in HOW_TO_READ)]
    return _PAGE.replace("@TITLE@", escape(f"{model.name} {model.version}")).replace("@BODY@", "\n".join(body))


def _cohorts(by: str, cohorts: Sequence[Cohort]) -> str:
    rows = [
        [
            escape(cohort.name), str(cohort.known), str(cohort.undetermined), str(cohort.abnormal), str(cohort.normal),
            *(_html_figure(figure_cell(cohort, name)) for name in SITE_FIGURES),
        ]
        for cohort in cohorts
    ]  # fmt: skip
    names = (name.upper() if name in _ABBREVIATIONS else name for name in SITE_FIGURES)
    return _table([by, "known", "undetermined", "abnormal", "normal", *names], rows)


def _html_figure(text: str) -> str:
    value, bracket, interval = text.partition(" [")
    return f"{value}<small>{interval.rstrip(']').replace(', ', '–')}</small>" if bracket else value


def _figure(caption: str, svg: str | None) -> str:
    inside = svg or f"<p class=verdict>Too few cases: it needs {FEWEST} patients of each class.</p>"
    return f"<figure><figcaption>{escape(caption)}</figcaption>{inside}</figure>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are HTML already."""
    cells = "".join(f"<th>{name}</th>" for name in head)
    lines = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class=wide><table><thead><tr>{cells}</tr></thead><tbody>\n{lines}\n</tbody></table></div>"


_PAGE: Final = """<!doctype html>
<html lang=en>
<meta charset=utf-8>
<meta name=viewport content="width=device-width, initial-scale=1">
<meta name=color-scheme content="light dark">
<title>@TITLE@: site report</title>
<style>
:root { --paper: #fff; --text: #1b1f24; --faint: #c9ced6; --soft: #f3f5f8; --quiet: #5b6570; --line: #0b5fa5;
  --other: #d55e00; }
@media screen and (prefers-color-scheme: dark) {
  :root { --paper: #15191f; --text: #e8ebef; --faint: #454c57; --soft: #1e242c; --quiet: #a4adb8; --line: #6db3f2;
    --other: #f2a365; }
}
body { background: var(--paper); color: var(--text); font: 16px/1.5 system-ui, sans-serif; max-width: 72rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; }
.lead { font-size: 1.1rem; }
.verdict { background: var(--soft); border-left: .4rem solid var(--other); padding: .6rem 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--faint); vertical-align: top; }
td:first-child { overflow-wrap: anywhere; }
small { display: block; color: var(--quiet); white-space: nowrap; }
figure { margin: 2rem 0; } figcaption { font-weight: 600; margin-bottom: .4rem; }
svg { max-width: 100%; height: auto; }
.fill-text { fill: var(--text); } .fill-line { fill: var(--line); } .fill-other { fill: var(--other); }
.fill-faint { fill: var(--faint); } .stroke-text { stroke: var(--text); } .stroke-line { stroke: var(--line); }
.stroke-other { stroke: var(--other); } .stroke-faint { stroke: var(--faint); }
@media print {
  body { font-size: 10pt; margin: 0; max-width: none; } table { font-size: 8pt; } h2 { margin-top: 1.2rem; }
  figure, tr, .verdict { break-inside: avoid; } h2 { break-after: avoid; } .wide { overflow: visible; }
  @page { margin: 14mm; size: landscape; }
}
</style>
<body>
@BODY@
</body>
</html>
"""
