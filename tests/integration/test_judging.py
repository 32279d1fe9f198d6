"""compare, truth and site-report on a real database: what a site is told of its models, and what it is not."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import Run
from judged import CANDIDATE, LIVE, analysed, site
from records import Record

from pacs_agent.record import deciding, retaining
from pacs_agent.record.store import Store

HEADING = "accession_number,study_instance_uid,body_part,laterality,label\n"
Truth = Callable[[str], str]


@pytest.fixture
def record(store: Store) -> Iterator[Record]:
    """A migrated record at a fixed moment."""
    made = Record(store.path)
    made.clock = lambda: made.moment
    yield made
    made.close()


@pytest.fixture
def truth(tmp_path: Path) -> Truth:
    """Writes a truth file of rows; its path."""

    def write(rows: str, heading: str = HEADING) -> str:
        path = tmp_path / "reviewed.csv"
        path.write_text(heading + rows)
        return str(path)

    return write


def known(record: Record) -> list[tuple[str, str, str | None, str]]:
    return record.select("SELECT study_instance_uid, body_part, laterality, label FROM truth ORDER BY 1, 2, 3")


# -- compare ----------------------------------------------------------------------------------------------------------


def test_compare_tells_how_far_two_models_agree(run: Run, record: Record) -> None:
    """Figures by part of the pairs that both claim, B less A; the largest difference first."""
    analysed(record, "1.4.1", [("hand", "R", 0.9)], candidate=[0.75])
    analysed(record, "1.4.2", [("hand", "L", 0.2)], candidate=[0.7])
    analysed(record, "1.4.3", [("wrist", "R", 0.1)], candidate=[0.2])
    analysed(record, "1.4.4", [("wrist", "R", None)], candidate=[0.4])
    analysed(record, "1.4.5", [("wrist", "R", 0.6)])
    code, out, err = run("compare", "net", "candidate@2", "--format", "json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert [told["a"]["model_name"], told["b"]["bundle_hash"]] == ["net", CANDIDATE[2]]
    assert (told["only_a"], told["only_b"]) == (1, 0)
    groups = {group["body_part"]: group for group in told["groups"]}
    assert list(groups) == ["overall", "hand", "wrist"]
    assert [groups[part]["findings"] for part in groups] == [4, 2, 2]
    assert [groups[part]["both_claim"] for part in groups] == [3, 2, 1]
    assert groups["overall"]["agreement"] == pytest.approx(2 / 3)
    assert groups["overall"]["kappa"] == pytest.approx(0.4)
    assert groups["overall"]["mean_difference"] == pytest.approx(0.45 / 3)
    assert groups["wrist"]["kappa"] is None  # of one class nothing can be agreed on beyond chance
    assert groups["hand"]["kappa"] is None  # one of them says the same of every finding
    assert [pair["accession_number"] for pair in told["differ_most"]] == ["A-1.4.2", "A-1.4.1", "A-1.4.3"]
    assert told["differ_most"][0]["difference"] == pytest.approx(0.5)

    rows = list(csv.DictReader(io.StringIO(run("compare", CANDIDATE[2][:6], "net@1", "--format", "csv")[1])))
    assert float(rows[0]["mean_difference"]) == pytest.approx(-0.45 / 3)
    table = run("compare", "net", "candidate", "--most", "1")[1]
    assert all(word in table for word in ("A: net@1", "overall", "0.667", "A-1.4.2", "+0.50"))
    assert "A-1.4.1" not in table


def test_compare_takes_the_latest_word_of_each(run: Run, record: Record) -> None:
    """A later revision counts, by whichever bundle was live then; a withdrawn study counts nowhere."""
    analysed(record, "1.4.1", [("hand", "R", 0.1)], candidate=[0.2])
    analysed(record, "1.4.1", [("hand", "R", 0.9)], candidate=[0.8])
    told = json.loads(run("compare", "net", "candidate", "--format", "json")[1])
    assert [group["findings"] for group in told["groups"]] == [1, 1]
    assert told["differ_most"][0]["abnormal_probability_a"] == 0.9
    assert deciding.settle(record, "1.4.1", "withdraw", "wrong patient")
    code, out, err = run("compare", "net", "candidate")
    assert (code, out) == (1, "")
    assert "have no finding in common" in err


@pytest.mark.parametrize(
    ("names", "code", "line"),
    [
        (("nobody", "net"), 2, "no model called 'nobody' has analysed anything: candidate@2 (c2c2c2c2c2c2), net@1 (a"),
        (("net", "a1a1"), 2, "'net' and 'a1a1' are the same model"),
        (("other", "net"), 2, "'other' is the name of several: other@1 (0101"),
        (("other@1", "net"), 1, "have no finding in common"),
        (("net", "net@1 "), 2, "are the same model"),
    ],
)
def test_compare_says_which_model_it_does_not_know(
    run: Run, record: Record, names: tuple[str, str], code: int, line: str
) -> None:
    """Unknown, ambiguous, twice the same, nothing in common: one line each."""
    analysed(record, "1.4.1", [("hand", "R", 0.1)], candidate=[0.2])
    analysed(record, "1.4.2", [("hand", "R", 0.1)], model=("other", "1", "01" * 32))
    analysed(record, "1.4.3", [("hand", "R", 0.1)], model=("other", "2", "02" * 32))
    found, out, err = run("compare", *names)
    assert (found, out) == (code, "")
    assert line in err
    assert err.count("\n") == 1


def test_commands_say_that_there_is_no_database(run: Run) -> None:
    """Before the first start each of them is one line and exit 1."""
    for arguments in (("compare", "a", "b"), ("site-report",), ("truth", "list")):
        code, out, err = run(*arguments)
        assert (code, out) == (1, "")
        assert "there is no database" in err


# -- truth ------------------------------------------------------------------------------------------------------------


def test_truth_is_imported_and_listed(run: Run, record: Record, truth: Truth) -> None:
    """By accession number or UID; part and side may be left out where the study has one finding; each has an event."""
    analysed(record, "1.4.1", [("hand", "R", 0.9)])
    analysed(record, "1.4.2", [("hand", "L", 0.2), ("wrist", None, 0.2)])
    path = truth("A-1.4.1,,,,abnormal\n,1.4.2,Hand,,NORMAL\n\nA-1.4.2,1.4.2,wrist,L,normal\n")
    assert run("truth", "import", path, "--dry-run")[:2] == (
        0,
        "3 imported, 0 changed, 0 unchanged, 0 refused; nothing was written\n",
    )
    assert known(record) == []
    assert run("truth", "import", path) == (0, "3 imported, 0 changed, 0 unchanged, 0 refused\n", "")
    assert known(record) == [
        ("1.4.1", "hand", "R", "abnormal"),
        ("1.4.2", "hand", "L", "normal"),
        ("1.4.2", "wrist", None, "normal"),
    ]
    assert record.select(
        "SELECT detail FROM events WHERE event = 'truth imported' AND study_instance_uid = '1.4.1'"
    ) == [("hand R: abnormal, from reviewed.csv",)]
    assert run("truth", "import", path)[1].startswith("0 imported, 0 changed, 3 unchanged")
    assert record.select("SELECT COUNT(*) FROM events WHERE event = 'truth imported'") == [(3,)]
    listed = run("truth", "list", "--format", "csv")[1]
    assert "1.4.1,A-1.4.1,hand,R,abnormal,reviewed.csv," in listed


def test_each_row_that_cannot_be_taken_is_a_line_and_the_others_are_taken(
    run: Run, record: Record, truth: Truth
) -> None:
    """Unknown studies, contradictions, malformed rows: row number and reason, exit 1; the good one is there."""
    analysed(record, "1.4.1", [("hand", "R", 0.9)])
    analysed(record, "1.4.2", [("hand", "L", 0.2), ("wrist", "L", 0.2)])
    analysed(record, "1.4.3", [("elbow", "L", 0.2), ("elbow", "R", 0.2)])
    analysed(record, "1.4.4", [("hand", "R", 0.2)], accession_number="TWICE")
    analysed(record, "1.4.5", [("hand", "R", 0.2)], accession_number="TWICE")
    path = truth(
        "A-9,,,,normal\n"  # 2
        "A-1.4.1,,hand,R,normal\n"  # 3
        ",1.4.1,,,abnormal\n"  # 4
        "A-1.4.2,,,,normal\n"  # 5
        "A-1.4.2,,hand,R,normal\n"  # 6
        "A-1.4.2,,leg,,normal\n"  # 7
        "A-1.4.2,,hand,left,normal\n"  # 8
        "A-1.4.2,,hand,L,maybe\n"  # 9
        "A-1.4.2,,hand\n"  # 10
        ",,hand,L,normal\n"  # 11
        'A-1.4.2,,"hand,L,normal\n'  # 12
        "A-1.4.3,,elbow,,normal\n"  # 13
        "TWICE,,,,normal\n"  # 14
        "A-1.4.1,1.4.2,,,normal\n"  # 15
        "A-1.4.2,,hand,L,normal\n"  # 16
    )
    code, out, err = run("truth", "import", path)
    assert (code, out) == (1, "1 imported, 0 changed, 0 unchanged, 14 refused\n")
    assert known(record) == [("1.4.2", "hand", "L", "normal")]
    lines = dict(re.findall(r"^row (\d+): (.*)$", err, re.MULTILINE))
    assert list(lines) == [str(row) for row in range(2, 16)]
    for row, reason in {
        2: "no study 'A-9' is known",
        3: "normal is contradicted by row 4",
        4: "abnormal is contradicted by row 3",
        5: "not one finding that an unnamed part could mean; it has: hand L, wrist L",
        6: "not one finding that hand R could mean",
        7: "body_part 'leg' is none of elbow, finger",
        8: "laterality 'LEFT' is none of L, R, B, or empty",
        9: "label 'maybe' is none of normal, abnormal",
        10: "it has 3 cells, the heading 5",
        11: "it names no study",
        12: "it cannot be read",
        13: "not one finding that elbow could mean; it has: elbow L, elbow R",
        14: "2 studies have accession number 'TWICE'",
        15: "no study '1.4.2' with accession number 'A-1.4.1' is known",
    }.items():
        assert reason in lines[str(row)]


def test_label_that_contradicts_the_record_needs_a_word(run: Run, record: Record, truth: Truth) -> None:
    """What is there stays, unless --replace says that the new one counts; the history says what it was."""
    analysed(record, "1.4.1", [("hand", "R", 0.9)])
    assert run("truth", "import", truth("A-1.4.1,,,,abnormal\n"))[0] == 0
    again = truth("A-1.4.1,,,,normal\n")
    code, out, err = run("truth", "import", again)
    assert (code, err) == (1, "row 2: normal contradicts abnormal from reviewed.csv; --replace takes the new one\n")
    assert known(record)[0][3] == "abnormal"
    code, out, _ = run("truth", "import", again, "--replace", "--json")
    assert code == 0
    assert json.loads(out) == {"imported": 0, "changed": 1, "unchanged": 0, "refused": [], "dry_run": False}
    assert known(record)[0][3] == "normal"
    [(detail,)] = record.select("SELECT detail FROM events WHERE event = 'truth changed'")
    assert detail == "hand R: normal, from reviewed.csv; it was abnormal, from reviewed.csv"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "the first line must name the columns"),
        (b"accession_number,body_part\n", "the first line must name the columns"),
        (b"accession_number,label,side\n", "unknown column 'side': one of accession_number"),
        (b"accession_number,label,label\n", "column 'label' stands there twice"),
        (b"accession_number,label\nM\xfcller,normal\n", "it is not UTF-8"),
    ],
)
def test_file_that_is_no_truth_file_is_one_line(
    run: Run, record: Record, tmp_path: Path, content: bytes, line: str
) -> None:
    """Where the heading or the encoding is wrong no row can be taken: one line, exit 2."""
    path = tmp_path / "wrong.csv"
    path.write_bytes(content)
    code, out, err = run("truth", "import", str(path))
    assert (code, out) == (2, "")
    assert f"{path}: {line}" in err
    assert err.count("\n") == 1


def test_a_spreadsheets_file_is_read(run: Run, record: Record, tmp_path: Path) -> None:
    """Byte order mark, semicolons, carriage returns, another order of columns."""
    analysed(record, "1.4.1", [("hand", "R", 0.9)])
    path = tmp_path / "sheet.csv"
    path.write_bytes("\ufeffLabel;Accession_Number\r\nNormal;A-1.4.1\r\n".encode())
    assert run("truth", "import", str(path))[0] == 0
    assert known(record) == [("1.4.1", "hand", "R", "normal")]


def test_truth_goes_with_its_study(run: Run, record: Record, truth: Truth) -> None:
    """Retention forgets a study whole."""
    analysed(record, "1.4.1", [("hand", "R", 0.9)])
    assert run("truth", "import", truth("A-1.4.1,,,,abnormal\n"))[0] == 0
    record.tick(86_400)
    retaining.forget_instances(record, record.now())
    assert retaining.forget_rows(record, record.now()) == 1
    assert known(record) == []


# -- site-report ------------------------------------------------------------------------------------------------------


def counted(record: Record, label: str, said: str, model: str = "live") -> int:
    """By hand, from the views."""
    return record.select(
        "SELECT COUNT(*) FROM analyses a JOIN truth t USING (study_instance_uid, body_part)"
        f" WHERE a.role = '{model}' AND t.label = '{label}' AND a.finding = '{said}'"
    )[0][0]


def test_site_report_judges_the_model_by_the_truth(run: Run, record: Record, truth: Truth, tmp_path: Path) -> None:
    """The figures are those that SQL counts; what was undetermined is told with its reason; the page names nobody."""
    rows = "".join(f"{accession},,,,{label}\n" for accession, label in site(record))
    assert run("truth", "import", truth(rows))[0] == 0
    code, out, err = run("site-report", "--format", "json", "--html", "site.html")
    assert (code, err) == (0, "wrote site.html\n")
    told = json.loads(out)
    assert told["model"] == dict(zip(("model_name", "model_version", "bundle_hash"), LIVE, strict=True))
    assert (told["findings"], told["undetermined"], told["truths"]) == (60, 6, 60)
    assert told["reasons"] == [{"reason": "the picture is not what the model knows", "findings": 6}]
    overall = told["cohorts"][0]
    hits, misses = counted(record, "abnormal", "abnormal"), counted(record, "abnormal", "normal")
    false, right = counted(record, "normal", "abnormal"), counted(record, "normal", "normal")
    assert (overall["abnormal"], overall["normal"]) == (hits + misses, false + right)
    assert overall["sensitivity"] == pytest.approx(hits / (hits + misses))
    assert overall["specificity"] == pytest.approx(right / (false + right))
    assert overall["ppv"] == pytest.approx(hits / (hits + false))
    for name in ("sensitivity", "specificity", "ppv", "kappa", "auroc", "ece", "brier"):
        assert overall[f"{name}_low"] <= overall[f"{name}_high"]
    assert {(row["by"], row["name"]) for row in told["cohorts"]} == {
        ("overall", "overall"), ("body_part", "hand"), ("body_part", "wrist"),
        ("station", "XR-ONE"), ("station", "XR-TWO"),
    }  # fmt: skip
    by_part = [row for row in told["cohorts"] if row["by"] == "body_part"]
    assert sum(row["cases"] for row in by_part) == overall["cases"] == 54

    page = (tmp_path / "site.html").read_text()
    assert "its results must not influence care" in page
    assert "before it goes live" in page
    assert page.count("<svg") == 4
    assert all(word in page for word in ("<th>body part</th>", "<th>station</th>", "<th>PPV</th>", ">chance</text>"))
    assert not re.search(r"P-1\.4|A-1\.4|1\.4\.\d", page)
    assert not re.search(r"<script|(?:src|href)=|url\(", page)
    table = run("site-report")[1]
    assert all(word in table for word in ("By body part", "XR-TWO", f"{overall['sensitivity']:.3f}", "too few ("))
    rows_ = list(csv.DictReader(io.StringIO(run("site-report", "--format", "csv")[1])))
    assert float(rows_[0]["auroc"]) == pytest.approx(overall["auroc"])


def test_a_further_bundle_is_judged_before_it_goes_live(run: Run, record: Record, truth: Truth) -> None:
    """--model judges what a bundle of `also` said of the same studies."""
    rows = "".join(f"{accession},,,,{label}\n" for accession, label in site(record))
    assert run("truth", "import", truth(rows))[0] == 0
    told = json.loads(run("site-report", "--model", "candidate", "--format", "json")[1])
    hits, misses = (counted(record, "abnormal", said, "further") for said in ("abnormal", "normal"))
    assert told["cohorts"][0]["sensitivity"] == pytest.approx(hits / (hits + misses))
    assert told["undetermined"] == 0


def test_too_few_cases_are_said_to_be(run: Run, record: Record, truth: Truth) -> None:
    """Nine of a class give no figure; the page and the table say so, JSON has null."""
    site(record, 18)
    rows = "".join(f"A-1.4.{index},,,,{'normal' if index % 2 else 'abnormal'}\n" for index in range(18))
    assert run("truth", "import", truth(rows))[0] == 0
    code, out, _ = run("site-report", "--html", "few.html")
    assert code == 0
    assert "There are too few cases to say anything" in out
    page = Path("few.html").read_text()
    assert "Too few cases: it needs 10 patients of each class" in page
    overall = json.loads(run("site-report", "--format", "json")[1])["cohorts"][0]
    assert overall["abnormal"] == 9
    assert [overall[name] for name in ("sensitivity", "auroc", "ece_low")] == [None, None, None]


def test_many_cases_of_one_patient_are_few(run: Run, record: Record, truth: Truth) -> None:
    """Cases of one patient are no independent news: patients are counted."""
    for index in range(24):
        analysed(record, f"1.4.{index}", [("hand", "R", 0.9 if index % 2 else 0.1)], patient_id="SAME")
    rows = "".join(f",1.4.{index},,,{'abnormal' if index % 2 else 'normal'}\n" for index in range(24))
    assert run("truth", "import", truth(rows))[0] == 0
    overall = json.loads(run("site-report", "--format", "json")[1])["cohorts"][0]
    assert (overall["cases"], overall["sensitivity"]) == (24, None)


def test_all_right_is_not_certain(run: Run, record: Record, truth: Truth) -> None:
    """Where every case is right the interval is the exact binomial one, not a point."""
    for index in range(24):
        analysed(record, f"1.4.{index}", [("hand", "R", 0.9 if index % 2 else 0.1)])
    rows = "".join(f",1.4.{index},,,{'abnormal' if index % 2 else 'normal'}\n" for index in range(24))
    assert run("truth", "import", truth(rows))[0] == 0
    overall = json.loads(run("site-report", "--format", "json")[1])["cohorts"][0]
    assert (overall["sensitivity"], overall["sensitivity_high"]) == (1.0, 1.0)
    assert overall["sensitivity_low"] == pytest.approx(0.7353, abs=1e-4)  # Clopper-Pearson, 12 of 12


def test_since_and_labels_without_a_finding(run: Run, record: Record, truth: Truth) -> None:
    """Earlier studies are left out; a part that the model made no finding of is counted, by the study's state."""
    analysed(record, "1.4.1", [("hand", "R", 0.9)])
    record.tick(86_400)
    later = record.now()
    analysed(record, "1.4.2", [("hand", "R", 0.1)])
    record.receive(9, "1.4.9", accession_number="A9")
    assert run("truth", "import", truth("A-1.4.1,,,,abnormal\nA-1.4.2,,wrist,,normal\nA9,,hand,L,normal\n"))[0] == 0
    told = json.loads(run("site-report", "--since", later, "--format", "json")[1])
    assert (told["findings"], told["truths"], told["since"]) == (1, 2, later)
    assert told["without_finding"] == [
        {"status": "no finding of this model", "truths": 1},
        {"status": "receiving", "truths": 1},
    ]
    code, out, err = run("site-report", "--since", "2030-01-01")
    assert (code, out) == (1, "")
    assert "has no finding since 2030-01-01T00:00:00.000Z yet" in err


def test_page_and_answer_hold_nothing_of_a_header(run: Run, record: Record, tmp_path: Path) -> None:
    """Reasons are counted by kind: what they quote, and their numbers, stay in the record."""
    for index, name in enumerate(("Meier", "O'Brien")):
        reason = f"StudyDescription '{name} <b>wrist</b>' names wrist and hand, {index}.25"
        analysed(record, f"1.4.{index}", [("hand", "R", None)], reason=reason, station_name="<i>XR</i>")
    told = json.loads(run("site-report", "--html", "site.html", "--format", "json")[1])
    assert told["reasons"] == [{"reason": "StudyDescription '…' names wrist and hand, n", "findings": 2}]
    page = (tmp_path / "site.html").read_text()
    assert "Meier" not in page
    assert "<b>" not in page
