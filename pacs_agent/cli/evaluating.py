"""Commands that judge what models said: against each other, and against what the site knows."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pacs_agent.cli import printing
from pacs_agent.cli.options import ConfigOption, FormatOption, JsonOption, moment, not_blank
from pacs_agent.cli.printing import Format
from pacs_agent.errors import PacsAgentError
from pacs_agent.settings import load_settings

MAX_TRUTH_BYTES = 64 << 20
SinceOption = Annotated[
    str | None,
    typer.Option("--since", metavar="T", callback=moment, help="Received at or after; ISO 8601, UTC."),
]
ModelArgument = typer.Argument(metavar="MODEL", callback=not_blank, help="name, name@version, or start of its hash.")


def compare(
    a: Annotated[str, ModelArgument],
    b: Annotated[str, ModelArgument],
    config: ConfigOption = None,
    since: SinceOption = None,
    most: Annotated[int, typer.Option("--most", min=0, help="How many of those that differ most.")] = 10,
    form: FormatOption = Format.TABLE,
) -> None:
    """How far two models agree on the same studies.

    Agreement, kappa and mean difference of the probabilities (B less A), by body part, with 95 % intervals; then the
    studies that differ most (not in csv). Of each model its latest word. Exit 1 when they have no finding in common.

    Example: pacs-agent compare demonstration candidate@2
    """
    from pacs_agent.cli import judgements
    from pacs_agent.evaluation.comparison import agreement_record, pair_record
    from pacs_agent.evaluation.comparison import compare as compared
    from pacs_agent.evaluation.said import chosen_model
    from pacs_agent.record import evaluated

    path = _database(config)
    known = evaluated.models(path)
    first, second = chosen_model(a, known), chosen_model(b, known)
    if first == second:
        raise PacsAgentError(f"{a!r} and {b!r} are the same model: {first}")
    found = compared(first, second, evaluated.said(path, first, since), evaluated.said(path, second, since), most=most)
    if found is None:
        printing.note(f"{first} and {second} have no finding in common{f' since {since}' if since else ''}")
        raise typer.Exit(1)
    groups = [agreement_record(group) for group in found.groups]
    if form is Format.CSV:
        printing.rows(groups)
    elif form is Format.JSON:
        printing.document(
            {
                "a": _model(first),
                "b": _model(second),
                "only_a": found.only_a,
                "only_b": found.only_b,
                "groups": groups,
                "differ_most": [pair_record(pair) for pair in found.differ_most],
            }
        )
    else:
        printing.lines(f"A: {first}", f"B: {second}")
        printing.table(*judgements.agreement_table(found.groups))
        if found.differ_most:
            printing.table(*judgements.pairs_table([pair_record(pair) for pair in found.differ_most]))
        printing.line(f"only A has looked at {found.only_a} more findings, only B at {found.only_b}")


def truth_import(
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", help="UTF-8, its first line names the columns.")],
    config: ConfigOption = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="A label that contradicts an earlier file's takes its place.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Take what the site knows to be true.

    Columns: accession_number or study_instance_uid, body_part (may be empty where the study has one finding),
    laterality (L, R, B or empty), label (normal or abnormal). A row that cannot be taken is a line on stderr,
    the others are taken; exit 1 when there was any.

    Example: pacs-agent truth import reviewed.csv --dry-run
    """
    from pacs_agent.evaluation.truthfile import read_truth
    from pacs_agent.record.store import Store
    from pacs_agent.record.truth import import_truth

    path = _database(config)
    if file.stat().st_size > MAX_TRUTH_BYTES:
        raise PacsAgentError(f"{file}: larger than {MAX_TRUTH_BYTES >> 20} MB")
    try:
        rows, refused = read_truth(file.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise PacsAgentError(f"{file}: it is not UTF-8: save it as such") from error
    except PacsAgentError as error:
        raise PacsAgentError(f"{file}: {error}") from error
    store = Store.attach(path)
    try:
        outcome = import_truth(store, rows, file.name, replace=replace, dry_run=dry_run)
    finally:
        store.close()
    refused = sorted([*refused, *outcome.refused], key=lambda each: each.row)
    for each in refused:
        printing.note(f"row {each.row}: {each.reason}")
    counts = {"imported": outcome.imported, "changed": outcome.changed, "unchanged": outcome.unchanged}
    if as_json:
        printing.document(
            {
                **counts,
                "refused": [{"row": each.row, "reason": each.reason} for each in refused],
                "dry_run": dry_run,
            }
        )
    else:
        told = ", ".join(f"{count} {word}" for word, count in {**counts, "refused": len(refused)}.items())
        printing.line(told + ("; nothing was written" if dry_run else ""))
    if refused:
        raise typer.Exit(1)


def truth_list(config: ConfigOption = None, form: FormatOption = Format.TABLE) -> None:
    """What the site knows: the `truth` view.

    Example: pacs-agent truth list --format csv
    """
    from pacs_agent.record import reading

    found = reading.query(_database(config), "SELECT * FROM truth ORDER BY imported_at, study_instance_uid, body_part")
    if form is Format.TABLE and not found.rows:
        printing.note("nothing is known yet: `pacs-agent truth import`")
    else:
        printing.found(found, form)


def site_report(
    config: ConfigOption = None,
    since: SinceOption = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODEL", help="name, name@version, or start of its hash; else the live one."),
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Also one page with plots.")] = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """Does the model work on this site's own pictures?

    What it said against what `truth import` took: sensitivity, specificity, PPV, kappa, AUROC and calibration by part
    and by station, with 95 % intervals; what was undetermined, and why. Exit 1 when the model has no finding.

    Example: pacs-agent site-report --since 2026-01-01 --html site.html
    """
    from pacs_agent.cli import judgements, tables
    from pacs_agent.evaluation.said import chosen_model
    from pacs_agent.evaluation.site import cohort_record
    from pacs_agent.evaluation.site import site_report as judged
    from pacs_agent.evaluation.sitepage import WARNING, site_page, summary
    from pacs_agent.record import evaluated
    from pacs_agent.record.times import to_text, utc_now

    path = _database(config)
    chosen = chosen_model(model, evaluated.models(path)) if model else evaluated.live_model(path)
    said = evaluated.said(path, chosen, since) if chosen else []
    if chosen is None or not said:
        printing.note(f"{chosen or 'no model'} has no finding{f' since {since}' if since else ''} yet")
        raise typer.Exit(1)
    report = judged(chosen, said, evaluated.truths(path, since))
    if html:
        made_at = to_text(utc_now())
        html.write_text(site_page(report, made_at=tables.minute(made_at) + " UTC", since=since), encoding="utf-8")
        printing.note(f"wrote {html}")
    cohorts = [cohort_record(cohort) for cohort in report.cohorts]
    if form is Format.CSV:
        printing.rows(cohorts)
    elif form is Format.JSON:
        printing.document(
            {
                "model": _model(chosen),
                "since": since,
                "findings": report.findings,
                "undetermined": report.undetermined,
                "reasons": [{"reason": reason, "findings": count} for reason, count in report.reasons],
                "truths": report.truths,
                "contradicted": report.contradicted,
                "without_finding": [{"status": name, "truths": count} for name, count in report.without_finding],
                "cohorts": cohorts,
            }
        )
    else:
        printing.lines(str(chosen), WARNING)
        for text in summary(report):
            printing.line(text)
        printing.line()
        for by in ("body_part", "station"):
            printing.table(*judgements.cohorts_table([report.overall, *report.of(by)], by.replace("_", " ")))
        if report.reasons:
            printing.table(("findings", "reason"), [(str(n), reason) for reason, n in report.reasons], "Undetermined")


def _database(config: Path | None) -> Path:
    """The database, which is there and of this version's schema."""
    from pacs_agent.record.store import Store

    path = load_settings(config).database_path
    Store.attach(path).close()
    return path


def _model(model: Any) -> dict[str, str]:
    return {"model_name": model.name, "model_version": model.version, "bundle_hash": model.bundle_hash}
