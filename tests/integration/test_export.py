"""Rows without persons: no value of a header but those of a few words, and the same person always the same."""

import csv
import io
import json
import re
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
from commands import Run, runner
from records import Record
from sqlalchemy import update

from pacs_agent.record import export
from pacs_agent.record.export import Pseudonyms, deidentified
from pacs_agent.record.tables import study

KEY = b"k" * 32
HEADER = {
    "issuer_of_patient_id": "HOSPITAL",
    "patient_birth_date": "19310417",
    "accession_number": "ACCQ55501",
    "station_name": "ZYGOTOVSKI",
    "manufacturer": "Zygotovski Ltd",
    "manufacturer_model_name": "Marguerite",
}


@pytest.fixture
def record(data_dir: Path) -> Iterator[Record]:
    """Three studies of two patients and one of nobody, a day apart, analysed; one cannot be."""
    made = Record.open(data_dir / "pacs-agent.db")
    made.clock = lambda: made.moment
    for number, patient in enumerate(("PID7741903", "PID7741903", "PID2", "")):
        made.tick(86400)
        day = made.moment.strftime("%Y%m%d")
        made.receive(number, f"1.4.{number}", patient_id=patient, study_date=day, **HEADER)
        made.queue()
        made.analyse(made.claim()[0], pacs=("waiting", None))
    with made.write() as connection:
        connection.execute(
            update(study)
            .where(study.c.id == 2)
            .values(state="failed", reason="no rule for Marguerite Zygotovski's hand")
        )
    yield made
    made.close()


@pytest.fixture
def run(data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs a command on the data directory."""
    monkeypatch.chdir(data_dir)
    monkeypatch.delenv("PACS_AGENT_CONFIG", raising=False)
    monkeypatch.setenv("PACS_AGENT__AGENT__DATA_DIR", str(data_dir))
    yield runner(capsys)
    structlog.reset_defaults()


def rows(record: Record, key: bytes = KEY) -> list[dict[str, Any]]:
    """An export."""
    return deidentified(record.path, Pseudonyms(key)).records()


def true_dates(record: Record) -> dict[str, str]:
    """Pseudonym of each study to when it was received."""
    hidden = Pseudonyms(KEY)
    return {hidden.uid(uid): at for uid, at in record.select("SELECT study_instance_uid, received_at FROM results")}


def test_no_value_of_a_header(record: Record) -> None:
    """No ID, date, accession, device or text, whole or in part; results as they are."""
    text = json.dumps(rows(record)).lower()
    values = [str(value) for row in record.select("SELECT * FROM study") for value in row if len(str(value)) > 3]
    said = {"analysed", "failed"}  # states, which are ours
    for value in {*values, *HEADER.values(), "Zygotovski", "Marguerite", "2026-01"} - said:
        assert value.lower() not in text, value
    assert all("1.4." not in row["study_instance_uid"] for row in rows(record))
    assert {(row["body_part"], row["finding"], row["model_name"]) for row in rows(record)} == {
        ("hand", "normal", "net")
    }


def test_same_patient_same_pseudonym_and_same_shift(record: Record) -> None:
    """Intervals of one patient stay, whole days; those who name no patient are nobody else's."""
    found = rows(record)
    patients = [row["patient"] for row in found]
    assert sorted(patients.count(each) for each in set(patients)) == [1, 1, 2]
    assert "" not in patients
    true = true_dates(record)
    shifts: dict[str, set[int]] = {}
    for row in found:
        then = datetime.fromisoformat(true[row["study_instance_uid"]])
        back = then - datetime.fromisoformat(row["received_at"])
        assert back.seconds == 0
        assert 1 <= back.days <= export.MAX_SHIFT_DAYS
        shifted = datetime.strptime(row["study_date"], "%Y%m%d").date()  # noqa: DTZ007 - a day has no zone
        assert then.date() - shifted == date.resolution * back.days
        shifts.setdefault(row["patient"], set()).add(back.days)
    assert all(len(days) == 1 for days in shifts.values())
    assert len(set.union(*shifts.values())) > 1


def test_another_key_tells_nothing_of_this_one(record: Record) -> None:
    """Pseudonyms and order differ; under the same key all is the same again."""
    mine, again, other = rows(record), rows(record), rows(record, b"o" * 32)
    assert mine == again
    for name in ("patient", "study_instance_uid", "accession", "station_name"):
        assert {row[name] for row in mine}.isdisjoint(row[name] for row in other), name


def test_order_is_of_what_is_shown(record: Record) -> None:
    """Rows in the order of receipt would give the shifts away."""
    shown = [(row["patient"], row["received_at"]) for row in rows(record)]
    assert shown == sorted(shown)


def test_uids_are_uids(record: Record) -> None:
    """Under 2.25, at most 64 characters (PS3.5 9.1, B.2); of a study without a report none."""
    for row in rows(record):
        for name in ("study_instance_uid", "report_sop_instance_uid"):
            assert re.fullmatch(r"2\.25\.[1-9]\d{0,38}", row[name]), name
    assert Pseudonyms(KEY).uid(None) == ""


@pytest.mark.parametrize(("text", "is_date"), [("", False), ("2026", False), ("19310231", False), ("00010101", False)])
def test_date_that_is_none(text: str, is_date: bool) -> None:
    """It is left out, never passed on."""
    assert bool(export._shifted_date(text, Pseudonyms(KEY).shift("x"))) is is_date


def test_equal_texts_of_two_kinds_differ() -> None:
    """Nobody may find a station's name among patients; and no two lists of values run together."""
    hidden = Pseudonyms(KEY)
    assert hidden.of("patient", "X", "") != hidden.of("accession", "X", "")
    assert hidden.of("patient", "ab", "c") != hidden.of("patient", "a", "bc")
    assert hidden.of("accession", "") == ""


def test_command(record: Record, run: Run, data_dir: Path, tmp_path: Path) -> None:
    """CSV and JSON of the same rows, files and key for their owner, the key made once; `--since` narrows."""
    out, again, late = (tmp_path / name for name in ("a.csv", "b.json", "c.csv"))
    assert run("export", "--deidentify", "--out", str(out)) == (0, f"{out}: 4 rows\n", "")
    key = (data_dir / "export.key").read_bytes()
    assert run("export", "--deidentify", "--out", str(again), "--format", "json")[0] == 0
    assert (data_dir / "export.key").read_bytes() == key
    assert {path.stat().st_mode & 0o777 for path in (out, again, data_dir / "export.key")} == {0o600}
    read = list(csv.DictReader(io.StringIO(out.read_text())))
    assert [row["patient"] for row in read] == [row["patient"] for row in json.loads(again.read_text())]
    assert tuple(read[0]) == export.COLUMNS
    since = record.moment.strftime("%Y-%m-%d")
    assert run("export", "--deidentify", "--out", str(late), "--since", since)[1] == f"{late}: 1 row\n"
    assert key.decode() not in out.read_text() + again.read_text()


def test_command_used_wrongly(record: Record, run: Run, data_dir: Path, tmp_path: Path) -> None:
    """One line and exit 2; nothing is written, nothing replaced."""
    out, key = tmp_path / "a.csv", tmp_path / "key"
    code, _, error = run("export", "--out", str(out))
    assert (code, len(error.splitlines())) == (2, 1)
    assert "--deidentify" in error
    key.write_bytes(b"k" * 64)
    key.chmod(0o644)
    assert run("export", "--deidentify", "--out", str(out), "--key", str(key))[0] == 2
    key.write_bytes(b"short")
    key.chmod(0o600)
    assert run("export", "--deidentify", "--out", str(out), "--key", str(key))[0] == 2
    assert run("export", "--deidentify", "--out", str(key))[0] == 2
    assert run("export", "--deidentify", "--out", str(out), "--format", "xml")[0] == 2
    assert key.read_bytes() == b"short"
    assert not out.exists()
    assert not (data_dir / "export.key").exists()
