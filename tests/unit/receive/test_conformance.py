"""docs/conformance.md says what the program offers and answers: its tables against the code."""

from pathlib import Path

import pytest
from pynetdicom.sop_class import StorageCommitmentPushModel

from pacs_agent.deliver import sender
from pacs_agent.identity import IMPLEMENTATION_CLASS_UID
from pacs_agent.receive import listener
from pacs_agent.receive.contexts import (
    COMMITMENT_TRANSFER_SYNTAXES,
    STORAGE_CLASSES,
    TRANSFER_SYNTAXES,
    supported_contexts,
)
from pacs_agent.report.capture import CAPTURE_CLASS
from pacs_agent.report.codes import BODY_PARTS
from pacs_agent.report.rejection import NOTE_CLASS
from pacs_agent.report.sr import SR_CLASSES

PAGE = Path(__file__).parents[3] / "docs" / "conformance.md"


def _table(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading, without its head."""
    lines = PAGE.read_text().splitlines()
    start = lines.index(f"#### {heading}")
    first = next(number for number in range(start, len(lines)) if lines[number].startswith("|"))
    rows: list[list[str]] = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip().strip("|").split("|")])
    return rows[2:]


def test_storage_classes() -> None:
    """The statement names every storage class that the listener accepts, once each, and no other."""
    uids = [row[1] for row in _table("Storage SOP classes")]
    assert len(uids) == len(set(uids))
    assert set(uids) == set(STORAGE_CLASSES)


def test_storage_commitment_roles() -> None:
    """The listener lets a caller be the SCP of storage commitment and never the SCU; the statement says so."""
    [context] = [each for each in supported_contexts() if each.abstract_syntax == StorageCommitmentPushModel]
    assert (context.scu_role, context.scp_role) == (False, True)
    assert list(context.transfer_syntax) == list(COMMITMENT_TRANSFER_SYNTAXES)
    assert "role selection SCP = 1 and SCU = 0" in PAGE.read_text()


def test_transfer_syntaxes() -> None:
    """The statement names the transfer syntaxes in the listener's order of preference."""
    rows = _table("Transfer syntaxes")
    assert [row[2] for row in rows] == list(TRANSFER_SYNTAXES)
    assert [row[0] for row in rows] == [str(number) for number in range(1, len(TRANSFER_SYNTAXES) + 1)]


def test_statuses_of_the_scp() -> None:
    """The statement names exactly the statuses that the listener can answer to C-STORE."""
    statuses = {value for name, value in vars(listener).items() if name.isupper() and isinstance(value, int)}
    assert {int(row[0], 16) for row in _table("Statuses of the Storage SCP")} == statuses


def test_rejections() -> None:
    """The statement gives result, source and reason of every rejection that the listener sends."""
    stated = {tuple(int(cell.split()[0]) for cell in row[1:]) for row in _table("Association rejections")}
    assert stated == {
        listener._CALLED_NOT_RECOGNISED,
        listener._CALLING_NOT_RECOGNISED,
        listener._LOCAL_LIMIT_EXCEEDED,
    }


def test_statuses_of_the_scu() -> None:
    """The statement names the statuses that count as stored, the duplicate, and what happens on any other."""
    rows = _table("Statuses received by the Storage SCU")
    assert rows[-1][0] == "any other"
    stated = {int(row[0], 16) for row in rows[:-1]}
    assert stated == {*sender.STORED, sender.DUPLICATE_SOP_INSTANCE}


def test_classes_of_the_scu() -> None:
    """The statement names the SR classes that a destination can be sent, that of heat maps and that of notes."""
    stated = {
        row[0].removeprefix("report, ").split(" (")[0]: row[2] for row in _table("SOP classes of the Storage SCU")
    }
    assert stated == {**SR_CLASSES, "heat map": CAPTURE_CLASS, "rejection note": NOTE_CLASS}


def test_body_part_codes() -> None:
    """The statement gives each body part the code that reports carry."""
    stated = {row[0]: tuple(row[1:]) for row in _table("Body parts")}
    assert stated == {part: (code.value, code.scheme_designator, code.meaning) for part, code in BODY_PARTS.items()}


@pytest.mark.parametrize("claim", ["No conformance with IHE AI Results", IMPLEMENTATION_CLASS_UID])
def test_says(claim: str) -> None:
    """The statement claims no IHE profile, and names our implementation as we do on the wire."""
    assert claim in " ".join(PAGE.read_text().split())
