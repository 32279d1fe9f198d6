"""Texts of others in every column that takes any: what SQL, terminals, logs and pages make of them."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import Run
from judged import analysed
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from radiographs import deep
from records import Record

from pacs_agent.printable import printable
from pacs_agent.record.store import Store
from pacs_agent.study.bodypart import map_body_part
from pacs_agent.study.instance import Instance

FORGED = "2026-01-01 00:00 forged"
MOVES = "\r\x1b[2J\x1b]0;owned\x07\x9b31m\u202etxt\u2028"
EVIL = f"'; DROP TABLE study; --\" ../../etc\n{FORGED}{MOVES} <script>alert(1)</script> é手"
UNSAFE = {*map(chr, (*range(0x20), *range(0x7F, 0xA0))), "\u202e", "\u2028"} - {"\n"}
FACTS = (
    *("patient_id", "issuer_of_patient_id", "patient_birth_date", "accession_number", "study_date", "modality"),
    *("station_name", "manufacturer", "manufacturer_model_name", "body_part_examined", "view_position"),
)


@pytest.fixture
def record(store: Store) -> Iterator[Record]:
    """A record in which every text of others is `EVIL`: as it comes from a header, and as none does."""
    made = Record(store.path)
    made.clock = lambda: made.moment
    analysed(made, "1.4.1", [("hand", "R", None), ("wrist", "L", 0.9)], reason=EVIL, **dict.fromkeys(FACTS, EVIL))
    with made.write() as connection:
        connection.exec_driver_sql("UPDATE instance SET calling_ae_title = ?, calling_address = ?", (EVIL, EVIL))
        connection.exec_driver_sql("UPDATE study SET calling_ae_title = ?", (EVIL,))
    yield made
    made.close()


def plain(text: str) -> bool:
    """Whether it moves no cursor, and no line of it begins with what others wrote."""
    return not UNSAFE & set(text) and not any(line.strip().startswith(FORGED) for line in text.splitlines())


COMMANDS: dict[str, tuple[str, ...]] = {
    "results": ("results",),
    "results as CSV": ("results", "--format", "csv"),
    "results as JSON": ("results", "--format", "json"),
    "show": ("show", "1.4.1"),
    "show by a hostile ID": ("show", EVIL),
    "show as JSON": ("show", "1.4.1", "--json"),
    "status": ("status",),
    "status as JSON": ("status", "--json"),
    "sql": ("sql", "SELECT * FROM instance"),
    "sql as CSV": ("sql", "SELECT * FROM events", "--format", "csv"),
    "a wrong statement": ("sql", f"SELECT {EVIL}"),
    "a study that is not known": ("accept", EVIL),
    "a time that is none": ("results", "--since", EVIL),
    "a file that is not there": ("predict", f"{EVIL}.dcm"),
    "site-report": ("site-report", "--html", "site.html"),
}


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS.keys())
def test_a_terminal_shows_texts_of_others_as_text(
    run: Run, record: Record, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    """Escaped, on stdout and stderr; and the tables are all there after it."""
    _, out, err = run(*arguments)
    assert plain(out), repr(out)
    assert plain(err), repr(err)
    assert out or err
    assert "Traceback" not in err
    assert record.select("SELECT count(*) FROM study") == [(1,)]
    assert [path for path in tmp_path.rglob("*") if "etc" in path.name] == []


def test_json_says_the_text_itself(run: Run, record: Record) -> None:
    """Escaped as JSON escapes, so that a program reads what the record holds."""
    rows = json.loads(run("results", "--format", "json")[1])
    assert {row["station_name"] for row in rows} == {EVIL}


def test_csv_is_a_line_a_row(run: Run, record: Record) -> None:
    """Whatever the text holds; the columns are where they were."""
    out = run("results", "--format", "csv")[1]
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(out.splitlines()) == len(rows) + 1
    assert {row["station_name"] for row in rows} == {printable(EVIL)}


def test_a_page_shows_texts_of_others_as_text(run: Run, record: Record, tmp_path: Path) -> None:
    """No element and no script of theirs."""
    (tmp_path / "truth.csv").write_text("study_instance_uid,body_part,label\n1.4.1,wrist,abnormal\n")
    assert run("truth", "import", "truth.csv")[0] == 0
    assert run("site-report", "--html", "site.html")[0] == 0
    page = (tmp_path / "site.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_predict_of_a_deep_header_is_a_reason(run: Run, tmp_path: Path) -> None:
    """No traceback: the file has its row, as any other that cannot be read."""
    deep(tmp_path / "deep.dcm")
    code, out, err = run("predict", "deep.dcm", "--json")
    assert (code, err) == (1, "")
    [answer] = json.loads(out)
    assert (answer["abnormal_probability"], answer["finding"]) == (None, None)
    assert answer["reason"]


def test_a_header_gives_texts_of_one_line(make_raw: Callable[[bytes], Dataset]) -> None:
    """Facts of a header hold no control of ASCII; line breaks and NUL part words, so that the mapping reads them."""
    facts = Instance.from_dataset(make_raw(b"XR HAND\r\n\x1b[2Jleft\0\x07"))
    assert facts.study_description == r"XR HAND \x1b[2Jleft \x07"
    assert facts.body_part_examined == facts.study_description
    assert map_body_part(facts).body_part == "hand"


@pytest.fixture
def make_raw() -> Callable[[bytes], Dataset]:
    """Makes a data set whose description and body part are these bytes, as no encoder would write them."""

    def make(value: bytes) -> Dataset:
        ds = Dataset()
        for tag, vr in ((0x00081030, "LO"), (0x00180015, "CS")):
            ds[tag] = RawDataElement(BaseTag(tag), vr, len(value), value, 0, False, True)
        return ds

    return make
