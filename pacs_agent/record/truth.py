"""What a site knows of its studies: rows of a file in, labels in the record out, each row taken or refused by its own.

Enters: rows that were read already. Leaves: `site_truth`, one label for each study, part and side, and a line of the
history for each. A row that is refused costs no other row anything.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.sqlite import insert as upsert

from pacs_agent.evaluation.site import match
from pacs_agent.evaluation.truthfile import Refusal, TruthRow
from pacs_agent.record.reading import query
from pacs_agent.record.store import Store, add_event
from pacs_agent.record.tables import analysis, finding, site_truth, study

LABELS_AT_A_TIME = 100  # every receipt waits for the write lock
Key = tuple[str, str, str | None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a file's rows; `changed` only where labels may be replaced."""

    imported: int
    changed: int
    unchanged: int
    refused: tuple[Refusal, ...]


def import_truth(
    store: Store, rows: Sequence[TruthRow], file: str, *, replace: bool = False, dry_run: bool = False
) -> Outcome:
    """Take every row that can be taken.

    Args:
        store: the record.
        rows: of one file.
        file: its name, kept with each label.
        replace: a label that contradicts the record's takes its place, else the row is refused.
        dry_run: nothing is written; the outcome is the same.
    """
    refused: list[Refusal] = []
    meant: dict[Key, list[TruthRow]] = {}
    with store.read() as connection:
        for row in rows:
            found = _resolved(connection, row)
            if isinstance(found, str):
                refused.append(Refusal(row.row, found))
            else:
                meant.setdefault(found, []).append(row)
    there = _there(store.path)
    taken: dict[Key, str] = {}
    imported = changed = unchanged = 0
    for key, same in meant.items():
        if len({row.label for row in same}) > 1:  # nobody knows which is right
            others = {row.row: [str(each.row) for each in same if each is not row] for row in same}
            refused += [
                Refusal(row.row, f"{row.label} is contradicted by row {', '.join(others[row.row])}: the same finding")
                for row in same
            ]
            continue
        label, known = same[0].label, there.get(key)
        if known and known[0] != label and not replace:
            refused += [
                Refusal(row.row, f"{label} contradicts {known[0]} from {known[1]}; --replace takes the new one")
                for row in same
            ]
            continue
        taken[key] = label
        imported += known is None
        changed += known is not None and known[0] != label
        unchanged += known is not None and known[0] == label
    labels = list(taken.items())
    for start in range(0, 0 if dry_run else len(labels), LABELS_AT_A_TIME):
        with store.write() as connection:
            _write(connection, store.now(), labels[start : start + LABELS_AT_A_TIME], there, file)
    return Outcome(imported, changed, unchanged, tuple(sorted(refused, key=lambda each: each.row)))


def _resolved(connection: Connection, row: TruthRow) -> Key | str:
    """The finding that a row means, or why none."""
    name = row.study_instance_uid or row.accession_number
    studies = _studies(connection, row)
    if not studies:
        is_both = row.study_instance_uid and row.accession_number
        return f"no study {name!r}{f' with accession number {row.accession_number!r}' if is_both else ''} is known"
    if len(studies) > 1:
        return f"{len(studies)} studies have accession number {name!r}: give study_instance_uid"
    findings = _findings(connection, studies[0])
    if row.body_part and row.body_part not in {part for part, _ in findings}:
        # Known all the same: that the agent made no finding of it is worth counting.
        return studies[0], row.body_part, row.laterality or None
    meant = [
        (part, side)
        for part in ([row.body_part] if row.body_part else dict.fromkeys(part for part, _ in findings))
        for side in match(row.laterality or None, [side for each, side in findings if each == part])
    ]
    if len(meant) == 1:
        return studies[0], *meant[0]
    wanted = " ".join(filter(None, (row.body_part or "an unnamed part", row.laterality)))
    told = ", ".join(f"{part} {side or ''}".strip() for part, side in findings) or "none"
    return f"study {name!r} has not one finding that {wanted} could mean; it has: {told}"


def _studies(connection: Connection, row: TruthRow) -> Sequence[str]:
    """Study Instance UIDs of the studies that have both, where given."""
    statement = select(study.c.study_instance_uid)
    if row.accession_number:
        statement = statement.where(study.c.accession_number == row.accession_number)
    if row.study_instance_uid:
        statement = statement.where(study.c.study_instance_uid == row.study_instance_uid)
    return connection.execute(statement).scalars().all()


def _findings(connection: Connection, study_instance_uid: str) -> list[tuple[str, str | None]]:
    """Part and side of each finding of a study's latest analysis."""
    latest = (
        select(func.max(analysis.c.revision))
        .where(analysis.c.study_id == study.c.id)
        .correlate(study)
        .scalar_subquery()
    )
    rows = connection.execute(
        select(finding.c.body_part, finding.c.laterality)
        .join(analysis, analysis.c.id == finding.c.analysis_id)
        .join(study, study.c.id == analysis.c.study_id)
        .where(
            study.c.study_instance_uid == study_instance_uid, analysis.c.revision == latest,
            finding.c.finding.is_not(None), finding.c.body_part.is_not(None),
        )
        .order_by(finding.c.id)
    )  # fmt: skip
    return [(row.body_part, row.laterality) for row in rows]


def _there(path: Path) -> dict[Key, tuple[str, str]]:
    """Label and file of everything known."""
    rows = query(path, "SELECT study_instance_uid, body_part, laterality, label, file FROM truth").rows
    return {(uid, part, side): (label, file) for uid, part, side, label, file in rows}


def _write(
    connection: Connection, now: str, taken: Iterable[tuple[Key, str]], there: dict[Key, tuple[str, str]], file: str
) -> None:
    for key, label in taken:
        (uid, part, side), known = key, there.get(key)
        study_id = connection.execute(select(study.c.id).where(study.c.study_instance_uid == uid)).scalar()
        if study_id is None:  # retention took it since it was looked up
            continue
        values = {"label": label, "file": file, "imported_at": now}
        connection.execute(
            upsert(site_truth)
            .values(study_id=study_id, body_part=part, laterality=side or "", **values)
            .on_conflict_do_update(index_elements=["study_id", "body_part", "laterality"], set_=values)
        )
        if known is None or known[0] != label:
            what = f"{part}{' ' + side if side else ''}: {label}, from {file}"
            add_event(
                connection, now, "truth changed" if known else "truth imported", study_instance_uid=uid,
                detail=what + (f"; it was {known[0]}, from {known[1]}" if known else ""),
            )  # fmt: skip
