"""The commands; the only module that prints or exits. Results on stdout, progress and errors on stderr.

Exit codes: 0 good, 1 it ran and the answer is no, 2 used wrongly.
"""

import csv
import dataclasses
import io
import json
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from pacs_agent import __version__
from pacs_agent.errors import PacsAgentError
from pacs_agent.record import reading
from pacs_agent.record.reading import QueryResult
from pacs_agent.record.times import to_text
from pacs_agent.settings import load_settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="A daemon beside a PACS: radiographs in by C-STORE, a structured report back, the story in SQL. "
    "Research software: not a medical device; its results must not influence care.",
)
model_app = typer.Typer(no_args_is_help=True, help="What a model bundle is, and whether it is whole.")
app.add_typer(model_app, name="model")

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="settings file; else $PACS_AGENT_CONFIG, else ./pacs-agent.toml")
]
JsonOption = Annotated[bool, typer.Option("--json", help="one JSON document on stdout")]


class Format(StrEnum):
    """How rows are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def main() -> None:
    """The entry point: one line for what was foreseen, never a traceback."""
    try:
        app()
    except PacsAgentError as error:
        print(f"pacs-agent: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(1)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
    if version:
        print(f"pacs-agent {__version__}")
        raise typer.Exit


@app.command()
def serve(config: ConfigOption = None) -> None:
    """Run the daemon: listener, analysis, delivery, schedule.

    Ready when it answers C-ECHO. SIGTERM or SIGINT: stop accepting, finish what is in hand, exit 0.

    Example: pacs-agent serve --config /etc/pacs-agent.toml
    """
    from pacs_agent.daemon import Daemon
    from pacs_agent.logs import configure

    settings = load_settings(config)
    configure(settings.log.level, settings.log.format)
    Daemon(settings).serve()


@app.command()
def demo(
    keep: Annotated[Path | None, typer.Option("--keep", help="leave data, pictures and reports in this folder")] = None,
) -> None:
    """Play modality, agent and PACS on this machine with phantom studies of all seven body parts.

    Example: pacs-agent demo --keep /tmp/demo
    """
    from pacs_agent.demonstration import run_demo
    from pacs_agent.logs import configure

    configure("warning", "console")
    outcome = run_demo(keep, lambda line: print(line, file=sys.stderr))
    _print_table(outcome.results, RESULT_COLUMNS)
    print("\nThe report that the PACS received for one of them:\n")
    print(outcome.report_text)
    if not outcome.is_complete:
        raise typer.Exit(1)


@app.command()
def init(file: Annotated[Path, typer.Argument(help="where to")] = Path("pacs-agent.toml")) -> None:
    """Write a commented settings file.

    Example: pacs-agent init /etc/pacs-agent.toml
    """
    from importlib.resources import files

    text = (files("pacs_agent") / "pacs-agent.toml").read_text()
    try:
        with file.open("x") as out:
            out.write(text)
    except OSError as error:
        raise PacsAgentError(f"{file}: {error.strerror}") from error
    print(f"wrote {file}", file=sys.stderr)


@app.command()
def check(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Validate settings, database, bundle, disk, ports and destinations; exit 1 when any fails.

    Example: pacs-agent check --config pacs-agent.toml
    """
    from pacs_agent.analyse.bundle import load_bundle
    from pacs_agent.deliver.sender import association, echo, why_not_established
    from pacs_agent.record.store import Store
    from pacs_agent.report.sr import SR_CLASSES

    settings = load_settings(config)
    lines: list[tuple[str, bool, str]] = [("settings", True, str(config or "as found"))]

    def attempt(what: str, run: Callable[[], str]) -> None:
        try:
            lines.append((what, True, run()))
        except (PacsAgentError, OSError) as error:
            lines.append((what, False, str(error)))

    def database() -> str:
        if not settings.database_path.is_file():
            return f"{settings.database_path} will be made"
        Store.attach(settings.database_path).close()
        return str(settings.database_path)

    def bundle() -> str:
        found = load_bundle(settings.model.bundle)
        state = "trained" if found.manifest.trained else "not trained: every finding is undetermined"
        return f"{found.manifest.name} {found.manifest.version}, hash holds, {state}"

    def disk() -> str:
        folder = next(each for each in (settings.data_dir, *settings.data_dir.parents) if each.exists())
        free = shutil.disk_usage(folder).free >> 20
        if free < settings.agent.min_free_mb:
            raise PacsAgentError(f"{free} MB free at {folder}, the floor is {settings.agent.min_free_mb} MB")
        return f"{free} MB free at {folder}"

    def port() -> str:
        from pacs_agent.daemon import running_state

        where = f"{settings.listener.host}:{settings.listener.port}"
        if running_state(settings.data_dir):
            return f"{where} (the daemon is running)"
        family = socket.getaddrinfo(settings.listener.host, None)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((settings.listener.host, settings.listener.port))
        return f"{where} is free"

    attempt("database", database)
    attempt("bundle", bundle)
    attempt("disk", disk)
    attempt("port", port)
    for target in settings.destination:

        def verification(target: Any = target) -> str:
            if problem := echo(target, settings.listener.ae_title):
                raise PacsAgentError(problem)
            return f"{target.ae_title}@{target.host}:{target.port} answers C-ECHO"

        def storage(target: Any = target) -> str:
            sop_class_uid = SR_CLASSES[target.sr_class]
            assoc = association(target, settings.listener.ae_title, [sop_class_uid])
            if not assoc.is_established:
                raise PacsAgentError(why_not_established(assoc))
            accepted = bool(assoc.accepted_contexts)
            assoc.release()
            if not accepted:
                raise PacsAgentError(f"does not accept the {target.sr_class} SR class")
            return f"accepts the {target.sr_class} SR class"

        attempt(f"destination {target.name}: echo", verification)
        attempt(f"destination {target.name}: sr", storage)
    if as_json:
        _print_json([{"check": what, "ok": ok, "detail": detail} for what, ok, detail in lines])
    else:
        for what, ok, detail in lines:
            print(f"{'ok  ' if ok else 'FAIL'} {what}: {detail}")
    if not all(ok for _, ok, _ in lines):
        raise typer.Exit(1)


@app.command()
def send(
    paths: Annotated[list[Path], typer.Argument(help="DICOM files or folders")],
    to: Annotated[str, typer.Option("--to", help="AE@HOST:PORT")],
    calling: Annotated[str, typer.Option("--calling", help="our AE title")] = "PACS_AGENT_SEND",
) -> None:
    """C-STORE of files or folders, as they are.

    Example: pacs-agent send study/ --to PACS_AGENT@127.0.0.1:11112
    """
    from rich.progress import Progress

    from pacs_agent.deliver.files import parse_peer, send_files
    from pacs_agent.logs import configure

    configure("warning", "console")
    peer = parse_peer(to)
    if not 0 < len(calling.strip()) <= 16:
        raise PacsAgentError(f"{calling!r} is not an AE title: 1 to 16 characters")
    sent = refused = 0
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("sending", total=None)
        for path, total, problem in send_files(paths, peer, calling):
            progress.update(task, total=total, advance=1)
            if problem:
                refused += 1
                print(f"{path}: {problem}", file=sys.stderr)
            else:
                sent += 1
    print(f"{sent} stored, {refused} not stored")
    if refused or not sent:
        raise typer.Exit(1)


RESULT_COLUMNS = (
    "accession_number", "body_part", "laterality", "status", "finding", "abnormal_probability", "images_analysed",
    "image_count", "reason",
)  # fmt: skip


@app.command()
def results(
    config: ConfigOption = None,
    since: Annotated[str | None, typer.Option("--since", help="received at or after, ISO 8601 UTC")] = None,
    body_part: Annotated[str | None, typer.Option("--body-part")] = None,
    status: Annotated[str | None, typer.Option("--status")] = None,
    form: Annotated[Format, typer.Option("--format")] = Format.TABLE,
) -> None:
    """The `results` view: one row for each study, body part and side.

    Example: pacs-agent results --since 2026-01-31 --body-part wrist --format csv
    """
    found = reading.results(_database(config), since=since and _moment(since), body_part=body_part, status=status)
    _print(found, form, RESULT_COLUMNS)


@app.command()
def show(
    key: Annotated[str, typer.Argument(help="accession number, Study Instance UID or patient ID")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Where is study X: its instances, findings, report, deliveries and history.

    Example: pacs-agent show A12345
    """
    path = _database(config)
    if not key.strip():
        raise PacsAgentError("name an accession number, Study Instance UID or patient ID")
    studies = reading.studies_of(path, key)
    stories = [{part: reading.query(path, sql, [uid]) for part, sql in reading.STORY.items()} for uid in studies]
    texts = [_report_text(config, path, uid) for uid in studies]
    if as_json:
        _print_json(
            [
                {part: found.records() for part, found in story.items()} | {"report": text}
                for story, text in zip(stories, texts, strict=True)
            ]
        )
    for uid, story, text in zip(studies, stories, texts, strict=True):
        if as_json:
            break
        print(f"Study {uid}\n")
        _print_table(story["results"], RESULT_COLUMNS, title="Results")
        _print_table(
            story["instances"],
            (
                "sop_instance_uid",
                "status",
                "body_part",
                "body_part_source",
                "laterality",
                "abnormal_probability",
                "reason",
            ),
            title="Instances",
        )
        if text:
            print(text + "\n")
        _print_table(
            story["deliveries"],
            (
                "object",
                "destination",
                "status",
                "attempts",
                "last_status",
                "last_error",
                "next_attempt_at",
                "delivered_at",
            ),
            title="Deliveries",
        )
        _print_table(story["history"], ("at", "event", "detail"), title="History")
    if not studies:
        print(f"no study is known by {key!r}", file=sys.stderr)
        raise typer.Exit(1)


@app.command()
def status(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Depth and oldest entry of every queue, callers, disk, worker, destinations; exit 1 when a person is needed.

    Example: pacs-agent status --json
    """
    from pacs_agent.daemon import running_state

    settings = load_settings(config)
    path = settings.database_path
    state = running_state(settings.data_dir)
    queues = reading.query(path, reading.QUEUES)
    callers = reading.query(path, reading.CALLERS)
    paused = reading.query(path, "SELECT stage, paused_at FROM pause ORDER BY stage")
    free_mb = shutil.disk_usage(settings.data_dir).free >> 20
    problems = [] if state else ["the daemon is not running"]
    if free_mb < settings.agent.min_free_mb:
        problems.append(f"{free_mb} MB free, the floor is {settings.agent.min_free_mb} MB")
    for row in queues.records():
        if row["status"] in ("failed", "parked") or (row["queue"], row["status"]) == ("studies", "held"):
            problems.append(f"{row['queue']}: {row['depth']} {row['status']}")
    if as_json:
        _print_json(
            {
                "daemon": state,
                "queues": queues.records(),
                "callers": callers.records(),
                "paused": paused.records(),
                "free_mb": free_mb,
                "destinations": [target.name for target in settings.destination],
                "problems": problems,
            }
        )
    else:
        if state:
            print(
                f"daemon: pid {state['pid']}, {state['ae_title']} on {state['host']}:{state['port']}, "
                f"ready since {state['ready_since']}, worker on {state['device']}"
            )
        print(f"disk: {free_mb} MB free, floor {settings.agent.min_free_mb} MB")
        destinations = ", ".join(f"{target.name} ({target.mode})" for target in settings.destination)
        print(f"destinations: {destinations or 'none, objects are held'}")
        for stage, paused_at in paused.rows:
            print(f"paused: {stage} since {paused_at}")
        _print_table(queues, queues.columns, title="Queues")
        _print_table(callers, callers.columns, title="Callers")
        for problem in problems:
            print(f"needs a person: {problem}")
    if problems:
        raise typer.Exit(1)


@app.command()
def pause(
    stage: Annotated[str, typer.Argument(help="analysis, or a destination's name")], config: ConfigOption = None
) -> None:
    """Hold a stage, across restarts too; receiving goes on.

    Example: pacs-agent pause analysis
    """
    _set_paused(stage, config, paused=True)


@app.command()
def resume(
    stage: Annotated[str, typer.Argument(help="analysis, or a destination's name")], config: ConfigOption = None
) -> None:
    """Let a held stage go on.

    Example: pacs-agent resume analysis
    """
    _set_paused(stage, config, paused=False)


@app.command()
def sql(
    statement: Annotated[str, typer.Argument(help="one SELECT")],
    config: ConfigOption = None,
    form: Annotated[Format, typer.Option("--format")] = Format.TABLE,
) -> None:
    """A read-only query on the views; a write is refused by the database.

    Example: pacs-agent sql "SELECT body_part, COUNT(*) FROM results GROUP BY 1"
    """
    found = reading.query(_database(config), statement)
    _print(found, form, found.columns)


@app.command()
def reanalyse(
    studies: Annotated[list[str], typer.Argument(help="Study Instance UIDs")], config: ConfigOption = None
) -> None:
    """Analyse finished studies again: a new revision and report.

    Example: pacs-agent reanalyse 1.2.3.4
    """
    from pacs_agent.record import analysing

    with _store(config) as store:
        refused = {uid: why for uid in studies if (why := analysing.reanalyse(store, uid))}
    print(f"{len(studies) - len(refused)} studies queued")
    for uid, why in refused.items():
        print(f"{uid} {why}", file=sys.stderr)
    if refused:
        raise typer.Exit(1)


@app.command()
def retry(config: ConfigOption = None) -> None:
    """Try parked deliveries and failed studies again.

    Example: pacs-agent retry
    """
    from pacs_agent.record.analysing import retry_failed
    from pacs_agent.record.delivering import make_due

    with _store(config) as store:
        deliveries, studies = make_due(store, ["parked"]), retry_failed(store)
    print(f"{deliveries} deliveries and {studies} studies are tried again")


@app.command()
def accept(study: Annotated[str, typer.Argument(help="Study Instance UID")], config: ConfigOption = None) -> None:
    """Let a held study through: a person has seen that its instances belong together.

    Example: pacs-agent accept 1.2.3.4
    """
    _settle(config, study, "accept", None)


@app.command()
def withdraw(
    study: Annotated[str, typer.Argument(help="Study Instance UID")],
    reason: Annotated[str, typer.Option("--reason", help="why, for the history")],
    config: ConfigOption = None,
) -> None:
    """Take a result back: deliveries that wait are cancelled.

    Example: pacs-agent withdraw 1.2.3.4 --reason "wrong patient"
    """
    if not reason.strip():
        raise PacsAgentError("--reason is empty: say why, for the history")
    _settle(config, study, "withdraw", reason)


@app.command()
def release(
    since: Annotated[str, typer.Option("--since", help="objects made at or after, ISO 8601 UTC")],
    config: ConfigOption = None,
) -> None:
    """Send held objects.

    Example: pacs-agent release --since 2026-01-31
    """
    from pacs_agent.record.delivering import make_due

    moment = _moment(since)
    with _store(config) as store:
        count = make_due(store, ["held"], moment)
    print(f"{count} deliveries are made now")


@app.command()
def predict(
    files: Annotated[list[Path], typer.Argument(help="DICOM, PNG or JPEG")],
    body_part: Annotated[str | None, typer.Option("--body-part", help="instead of what the header says")] = None,
    bundle: Annotated[str, typer.Option("--bundle", help="a folder, or the name of one that ships")] = "demonstration",
    as_json: JsonOption = False,
) -> None:
    """Analyse files without a daemon or a database.

    Example: pacs-agent predict wrist.png --body-part wrist --json
    """
    from pacs_agent.prediction import predict_files

    answers = predict_files(files, body_part=body_part, bundle_name=bundle)
    if as_json:
        _print_json([dataclasses.asdict(answer) for answer in answers])
    else:
        columns = tuple(field.name for field in dataclasses.fields(answers[0]))
        _print_table(QueryResult(columns, tuple(dataclasses.astuple(answer) for answer in answers)), columns)
    if all(answer.abnormal_probability is None for answer in answers):
        raise typer.Exit(1)


@model_app.command("info")
def model_info(bundle: Annotated[str, typer.Argument()] = "demonstration", as_json: JsonOption = False) -> None:
    """What a bundle is.

    Example: pacs-agent model info demonstration
    """
    from pacs_agent.analyse.bundle import load_bundle

    manifest = load_bundle(bundle).manifest.model_dump(mode="json")
    if as_json:
        _print_json(manifest)
    else:
        for key, value in manifest.items():
            print(f"{key}: {value}")


@model_app.command("verify")
def model_verify(bundle: Annotated[str, typer.Argument()] = "demonstration", as_json: JsonOption = False) -> None:
    """Whether a bundle's hash holds; exit 1 when not.

    Example: pacs-agent model verify ./bundle
    """
    from pacs_agent.analyse.bundle import load_bundle

    try:
        found = load_bundle(bundle)
    except PacsAgentError as error:
        print(json.dumps({"bundle": bundle, "ok": False, "reason": str(error)}) if as_json else f"FAIL {error}")
        raise typer.Exit(1) from error
    digest = found.manifest.weights_sha256
    print(json.dumps({"bundle": bundle, "ok": True, "weights_sha256": digest}) if as_json else f"ok {bundle}: {digest}")


def _moment(text: str) -> str:
    """A time as the database holds it; without a zone it is UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise PacsAgentError(f"{text!r} is not a time: write 2026-01-31 or 2026-01-31T08:15:00Z") from error
    return to_text(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def _database(config: Path | None) -> Path:
    return load_settings(config).database_path


@contextmanager
def _store(config: Path | None) -> Iterator[Any]:
    from pacs_agent.record.store import Store

    store = Store.attach(_database(config))
    try:
        yield store
    finally:
        store.close()


def _set_paused(stage: str, config: Path | None, *, paused: bool) -> None:
    from pacs_agent.analyse.station import STAGE

    known = [STAGE, *(target.name for target in load_settings(config).destination)]
    if stage not in known:
        raise PacsAgentError(f"there is no stage {stage!r}: one of {', '.join(known)}")
    with _store(config) as store:
        store.set_paused(stage, paused)
    print(f"{stage} is {'paused' if paused else 'running'}")


def _settle(config: Path | None, study: str, decision: Any, reason: str | None) -> None:
    from pacs_agent.record.analysing import settle

    with _store(config) as store:
        done = settle(store, study, decision, reason)
    if not done:
        print(f"{study}: {'not a held study' if decision == 'accept' else 'not known'}", file=sys.stderr)
        raise typer.Exit(1)
    print(f"{study}: {decision}{'ed' if decision == 'accept' else 'n'}")


def _report_text(config: Path | None, path: Path, uid: str) -> str | None:
    from pydicom import dcmread

    from pacs_agent.report.text import report_text

    found = reading.query(path, reading.REPORT_PATH, [uid]).rows
    if not found:
        return None
    file = load_settings(config).data_dir / found[0][0]
    return report_text(dcmread(file)) if file.is_file() else None


def _print(found: QueryResult, form: Format, columns: tuple[str, ...]) -> None:
    if form is Format.JSON:
        _print_json(found.records())
    elif form is Format.CSV:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(found.columns)
        writer.writerows(found.rows)
        print(out.getvalue(), end="")
    else:
        _print_table(found, columns)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def _print_table(found: QueryResult, columns: tuple[str, ...], title: str | None = None) -> None:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for record in found.records():
        table.add_row(*(_cell(record[column]) for column in columns))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)
