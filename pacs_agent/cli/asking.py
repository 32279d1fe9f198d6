"""Commands that ask the database and change nothing."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pacs_agent.cli import printing
from pacs_agent.cli.options import ConfigOption, FormatOption, JsonOption, moment, not_blank, one_of
from pacs_agent.cli.printing import Format
from pacs_agent.errors import PacsAgentError
from pacs_agent.record import reading
from pacs_agent.settings import Settings, load_settings
from pacs_agent.study.vocabulary import BODY_PARTS

if TYPE_CHECKING:
    from pacs_agent.cli.condition import Condition


def results(
    config: ConfigOption = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="T", callback=moment, help="Received at or after; ISO 8601, UTC."),
    ] = None,
    body_part: Annotated[
        str | None,
        typer.Option("--body-part", metavar="P", callback=one_of(BODY_PARTS), help=f"One of {', '.join(BODY_PARTS)}."),
    ] = None,
    status: Annotated[
        str | None,
        typer.Option(
            "--status",
            metavar="S",
            callback=one_of(reading.RESULT_STATUSES),
            help=f"One of {', '.join(reading.RESULT_STATUSES)}.",
        ),
    ] = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """One row for each study, body part and side.

    The `results` view, latest revisions. The table shows its main columns, json and csv all of them.

    Example: pacs-agent results --since 2026-01-31 --body-part wrist --format csv
    """
    from pacs_agent.cli.tables import results_table

    rows = reading.results(load_settings(config).database_path, since=since, body_part=body_part, status=status)
    if form is not Format.TABLE:
        printing.found(rows, form)
    elif rows.rows:
        printing.table(*results_table(rows.records()))
    else:
        printing.note("no results")


def show(
    key: Annotated[
        str,
        typer.Argument(
            metavar="KEY", callback=not_blank, help="An accession number, a Study Instance UID or a patient ID."
        ),
    ],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Where is study X: one study's whole story.

    Its results, instances, report, deliveries and history; every study that KEY names. Exit 1 when there is none.

    Example: pacs-agent show A12345
    """
    settings = load_settings(config)
    path = settings.database_path
    stories = [
        (
            uid,
            {part: reading.query(path, sql, [uid]).records() for part, sql in reading.STORY.items()},
            _report(settings, uid),
        )
        for uid in reading.studies_of(path, key)
    ]
    if as_json:
        printing.document([story | {"report": report} for _, story, report in stories])
    else:
        for uid, story, report in stories:
            _tell(uid, story, report)
    if not stories:
        printing.note(f"no study is known by {key!r}")
        raise typer.Exit(1)


def status(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """How the daemon fares; exit 1 when a person is needed.

    Depth and oldest entry of every queue, last receipt from each AE title, disk, worker, destinations.

    Example: pacs-agent status --json
    """
    from pacs_agent.cli.condition import condition

    found = condition(load_settings(config))
    if as_json:
        printing.document(dataclasses.asdict(found))
    else:
        _print_condition(found)
    if found.problems:
        raise typer.Exit(1)


def sql(
    statement: Annotated[str, typer.Argument(metavar="SELECT", callback=not_blank, help="One statement, quoted.")],
    config: ConfigOption = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """A read-only query; a write is refused by the database.

    The views: results, analyses, image_results, deliveries, events, truth.

    Example: pacs-agent sql "SELECT body_part, COUNT(*) FROM results GROUP BY 1"
    """
    printing.found(reading.query(load_settings(config).database_path, statement), form)


def _tell(uid: str, story: dict[str, list[dict[str, Any]]], report: str | None) -> None:
    from pacs_agent.cli import tables

    printing.lines(f"Study {uid}")
    printing.table(*tables.results_table(story["results"], "Results"))
    if len({(row["revision"], row["role"], row["bundle_hash"]) for row in story["analyses"]}) > 1:
        printing.table(*tables.revisions_table(story["analyses"]))
    printing.table(*tables.instances_table(story["instances"], story["results"]))
    if len({tuple(row.values())[1:] for row in story["identities"]}) > 1:  # not where it was corrected since
        printing.table(*tables.identities_table(story["identities"]))
    if report:
        printing.lines("Report", "", *report.rstrip("\n").split("\n"))
    if story["deliveries"]:
        printing.table(*tables.deliveries_table(story["deliveries"]))
    printing.table(*tables.history_table(story["history"]))


def _report(settings: Settings, uid: str) -> str | None:
    """The latest report in words, or why it cannot be shown; None where there is none.

    Where the latest revision has none, it says of which one it is: the results tell another story then.
    """
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    from pacs_agent.report.text import report_text

    found = reading.query(settings.database_path, reading.REPORT_PATH, [uid]).rows
    if not found:
        return None
    [[path, revision, latest]] = found
    if path is None or not (file := Path(settings.data_dir, path)).is_file():
        return "The report's file is gone: retention removed it."
    try:
        text = report_text(dcmread(file))
    except (InvalidDicomError, PacsAgentError) as error:
        return f"The report's file cannot be read: {error}"
    earlier = f"This is of revision {revision}; revision {latest} has no report.\n\n" if revision < latest else ""
    return earlier + text


def _print_condition(found: "Condition") -> None:
    from pacs_agent.cli import tables

    if found.daemon:
        where = f"{found.daemon['ae_title']} on {found.daemon['host']}:{found.daemon['port']}"
        printing.line(
            f"daemon: {where}, pid {found.daemon['pid']}, ready since {tables.second(found.daemon['ready_since'])}"
        )
        worker = f"pid {pid}" if (pid := found.daemon.get("worker_pid")) else "not running"
        printing.line(f"worker: on {found.daemon['device']}, {worker}")
        if waits := found.daemon.get("further_problem"):
            printing.line(f"a further bundle waits: {waits}")
    printing.line(f"disk: {found.free_mb} MB free, the floor is {found.min_free_mb} MB")
    for target in found.destinations:
        address = target["folder"] or f"{target['ae_title']}@{target['host']}:{target['port']}"
        state = ", paused" if target["paused"] else ""
        if since := target["unreachable_since"]:
            state += f", out of reach since {tables.second(since)}: {target['last_error']}"
        printing.line(f"destination {target['name']}: {address}, {target['mode']}{state}")
    if not found.destinations:
        printing.line("destinations: none, objects are made and held")
    for row in found.paused:
        printing.line(f"paused: {row['stage']}, since {tables.second(row['paused_at'])}")
    printing.line()
    if found.queues:
        printing.table(*tables.queues_table(found.queues))
    if found.callers:
        printing.table(*tables.callers_table(found.callers))
    for problem in found.problems:
        printing.line(f"needs a person: {problem}")
    if not found.problems:
        printing.line("all is well")
