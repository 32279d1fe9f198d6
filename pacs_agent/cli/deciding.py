"""Commands by which a person decides; each is one short transaction beside the daemon."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pacs_agent.cli import printing
from pacs_agent.cli.options import ConfigOption, JsonOption, StudyArgument, moment, not_blank, readable
from pacs_agent.cli.printing import counted
from pacs_agent.errors import PacsAgentError
from pacs_agent.record import reading
from pacs_agent.settings import Settings, load_settings

if TYPE_CHECKING:
    from pacs_agent.record.store import Store

StageArgument = Annotated[str, typer.Argument(metavar="STAGE", help="analysis, or a destination's name.")]


def pause(stage: StageArgument, config: ConfigOption = None) -> None:
    """Hold a stage, across restarts; receiving goes on.

    Example: pacs-agent pause analysis
    """
    _set_paused(stage, load_settings(config), paused=True)


def resume(stage: StageArgument, config: ConfigOption = None) -> None:
    """Let a paused stage go on.

    Example: pacs-agent resume analysis
    """
    _set_paused(stage, load_settings(config), paused=False)


def reanalyse(
    studies: Annotated[list[str], typer.Argument(metavar="STUDY_UID", callback=readable, help="Study Instance UIDs.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Analyse finished studies again: a new revision and report.

    Exit 1 when any of them cannot be; the others are queued all the same.

    Example: pacs-agent reanalyse 1.2.3.4
    """
    from pacs_agent.record import deciding

    with _store(load_settings(config)) as store:
        refused = {uid: why for uid in studies if (why := deciding.reanalyse(store, uid))}
    queued = [uid for uid in studies if uid not in refused]
    if as_json:
        printing.document({"queued": queued, "refused": refused})
    else:
        printing.line(f"{counted(len(queued), 'study', 'studies')} queued")
    for uid, why in refused.items():
        printing.note(f"{uid} {why}")
    if refused:
        raise typer.Exit(1)


def retry(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Try parked deliveries and failed studies again, all of them.

    Example: pacs-agent retry
    """
    from pacs_agent.record.deciding import retry_failed
    from pacs_agent.record.delivering import make_due

    with _store(load_settings(config)) as store:
        deliveries, studies = make_due(store, ["parked"]), retry_failed(store)
    if as_json:
        printing.document({"deliveries": deliveries, "studies": studies})
    else:
        printing.line(
            f"to be tried again: {counted(deliveries, 'delivery', 'deliveries')}, "
            f"{counted(studies, 'study', 'studies')}"
        )


def accept(study: StudyArgument, config: ConfigOption = None) -> None:
    """Let a held study through.

    A person has seen that its instances belong together. It says whose the report will be.

    Example: pacs-agent accept 1.2.3.4
    """
    with _store(load_settings(config)) as store:
        _settle(store, study, "accept", None)
        images = reading.query(store.path, reading.REPORT_IDENTITIES, [study]).records()
    printing.line(f"{study} is accepted")
    if images:
        patient, accession = (
            next((image[name] for image in images if image[name]), "(none)")
            for name in ("patient_id", "accession_number")
        )
        printing.line(
            f"its report will be made for patient ID {patient}, accession number {accession}: as its first image says, "
            "or the first whose body part is known"
        )


def withdraw(
    study: StudyArgument,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", callback=not_blank, help="Why, for the history.")],
    reject: Annotated[
        bool, typer.Option("--reject", help="Send a rejection note to every destination that has objects of it.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Take a result back: what waits to be delivered is cancelled.

    A copy that a destination has already stays there; which one has it is said. With --reject, also later, it gets a
    rejection note that names what it has. Whether it acts on that is its own affair.

    Example: pacs-agent withdraw 1.2.3.4 --reason "wrong patient" --reject
    """
    settings = load_settings(config)
    known = {target.name: target for target in settings.destinations}
    with _store(settings) as store:
        _settle(store, study, "withdraw", reason, list(known) if reject else [])
        copies = reading.query(store.path, reading.COPIES, [study]).rows
        told = [name for (name,) in reading.query(store.path, reading.NOTES, [study]).rows]
    printing.line(f"{study} is withdrawn")
    for name in told:
        held = ", held until `release`" if name in known and known[name].mode == "silent" else ""
        printing.line(f"{name} gets a rejection note of what it has{held}")
    for name, is_certain in copies:
        remedy = "--reject sends a rejection note of it" if name in known else "it must be removed there"
        printing.line(f"a copy {'is already' if is_certain else 'may be'} at {name}: {remedy}")


def release(
    since: Annotated[
        str,
        typer.Option("--since", metavar="T", callback=moment, help="Objects made at or after; ISO 8601, UTC."),
    ],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send held objects.

    Those of a silent destination, and those that came too late for `deliver_within_hours`.

    Example: pacs-agent release --since 2026-01-31
    """
    from pacs_agent.record.delivering import make_due

    with _store(load_settings(config)) as store:
        count = make_due(store, ["held"], since)
    if as_json:
        printing.document({"deliveries": count})
    else:
        printing.line(f"{counted(count, 'delivery', 'deliveries')} released")


@contextmanager
def _store(settings: Settings) -> Iterator["Store"]:
    from pacs_agent.record.store import Store

    store = Store.attach(settings.database_path)
    try:
        yield store
    finally:
        store.close()


def _set_paused(stage: str, settings: Settings, *, paused: bool) -> None:
    from pacs_agent.analyse.station import STAGE

    names = dict.fromkeys(name for target in settings.destinations for name in (target.group, target.name))
    known = [STAGE, *names]
    if stage not in known:
        raise PacsAgentError(f"there is no stage {stage!r}: one of {', '.join(known)}")
    with _store(settings) as store:
        store.set_paused(stage, paused)
    printing.line(f"{stage} is {'paused' if paused else 'running'}")


def _settle(
    store: "Store",
    study: str,
    decision: Literal["accept", "withdraw"],
    reason: str | None,
    reject_at: Sequence[str] = (),
) -> None:
    from pacs_agent.record.deciding import settle

    if not settle(store, study, decision, reason, reject_at):
        known = "withdrawn already" if reading.studies_of(store.path, study) else "not known"
        if reject_at and known == "withdrawn already":
            known += ", and no destination has anything that no rejection note names"
        printing.note(f"{study} is {'not a held study' if decision == 'accept' else known}")
        raise typer.Exit(1)
