"""Commands that run something: the daemon, the demo, the checks, a sender."""

import os
import resource
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pacs_agent.cli import printing
from pacs_agent.cli.options import ConfigOption, JsonOption
from pacs_agent.errors import DeliveryError, PacsAgentError
from pacs_agent.settings import load_settings, settings_file


def serve(
    config: ConfigOption = None,
    log_phi: Annotated[
        bool,
        typer.Option("--log-phi", help="Let the log name patients: IDs, accession numbers, what errors quote."),
    ] = False,
) -> None:
    """Run the daemon: listener, analysis, delivery.

    Ready when it answers C-ECHO. SIGTERM or SIGINT: stop accepting, finish what is in hand, exit 0.

    Example: pacs-agent serve --config /etc/pacs-agent/pacs-agent.toml
    """
    import structlog

    from pacs_agent.daemon import Daemon
    from pacs_agent.logs import configure

    settings = load_settings(config)
    configure(settings.log.level, settings.log.format, with_phi=log_phi)
    os.umask(0o077)
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))  # a core holds headers and pixels
    daemon = Daemon(settings)
    if log_phi:
        structlog.get_logger().warning("--log-phi is on: this log names patients; guard it, and start without it again")
    daemon.serve()


def demo(
    keep: Annotated[
        Path | None, typer.Option("--keep", metavar="DIR", help="Leave data, instances and reports in this folder.")
    ] = None,
) -> None:
    """Play modality, agent and PACS on this machine.

    Phantom studies of all seven body parts, over real associations. Needs no settings.

    Example: pacs-agent demo --keep /tmp/demo
    """
    from pacs_agent.cli.tables import results_table
    from pacs_agent.demonstration import run_demo
    from pacs_agent.logs import configure

    configure("warning", "console")
    outcome = run_demo(keep, printing.note)
    printing.table(*results_table(outcome.results.records()))
    printing.lines("The report that the PACS received for one of them:")
    printing.lines(*outcome.report_text.rstrip("\n").split("\n"))
    if not outcome.is_complete:
        printing.note("not every report reached the PACS")
        raise typer.Exit(1)


def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to; it must not exist yet.")] = Path(
        "pacs-agent.toml"
    ),
) -> None:
    """Write a commented settings file, all defaults.

    Example: pacs-agent init /etc/pacs-agent/pacs-agent.toml
    """
    from importlib.resources import files

    text = (files("pacs_agent") / "pacs-agent.toml").read_text()
    try:
        with file.open("x") as out:
            out.write(text)
    except FileExistsError as error:
        raise PacsAgentError(f"{file} exists; it is left as it is") from error
    printing.note(f"wrote {file}")


def check(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Look at settings, database, bundle, disk, port, destinations.

    One line each; exit 1 when any fails. A destination must answer C-ECHO and accept the class of every object that it
    would be sent; nothing is sent to it.

    Example: pacs-agent check --config pacs-agent.toml
    """
    from pacs_agent.cli.checks import run_checks
    from pacs_agent.logs import configure

    configure("error", "console")
    checks = run_checks(load_settings(config), settings_file(config))
    if as_json:
        printing.document([{"check": each.what, "ok": each.ok, "detail": each.detail} for each in checks])
    else:
        for each in checks:
            printing.line(f"{'ok  ' if each.ok else 'FAIL'} {each.what}: {each.detail}")
    if not all(each.ok for each in checks):
        raise typer.Exit(1)


def send(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="DICOM files, or folders of them.")],
    to: Annotated[str, typer.Option("--to", metavar="AE@HOST:PORT", help="The storage SCP.")],
    calling: Annotated[str, typer.Option("--calling", metavar="AE", help="Our AE title.")] = "PACS_AGENT_SEND",
    as_json: JsonOption = False,
) -> None:
    """C-STORE of files or folders, as they are, without TLS: where the listener has it, use a modality's or DCMTK's.

    Exit 1 when any was not stored; each of those is a line on stderr.

    Example: pacs-agent send study/ --to PACS_AGENT@127.0.0.1:11112
    """
    from rich.console import Console
    from rich.progress import Progress

    from pacs_agent.deliver.files import parse_peer, send_files
    from pacs_agent.logs import configure

    configure("warning", "console")
    peer = parse_peer(to)
    if not 0 < len(calling.strip()) <= 16:
        raise PacsAgentError(f"--calling: {calling!r} is not an AE title of 1 to 16 characters")
    stored, problems = 0, []
    failure: str | None = None
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("sending", total=None)
        try:
            for path, total, problem in send_files(paths, peer, calling):
                progress.update(task, total=total, advance=1)
                if problem:
                    problems.append({"file": str(path), "reason": problem})
                    printing.note(f"{path}: {problem}")
                else:
                    stored += 1
        except DeliveryError as error:
            failure = str(error)
    if failure:
        printing.note(f"pacs-agent: {failure}")
    answer: dict[str, Any] = {"stored": stored, "not_stored": len(problems), "problems": problems, "failure": failure}
    if as_json:
        printing.document(answer)
    else:
        rest = "; the others were not sent" if failure else ""
        printing.line(f"{stored} stored, {len(problems)} not stored{rest}")
    if problems or failure or not stored:
        raise typer.Exit(1)
