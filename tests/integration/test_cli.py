"""The commands on a real database and real associations: what a person and a monitor are told."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Run
from peers import free_port
from pynetdicom import AE
from pynetdicom.sop_class import Comprehensive3DSRStorage, SecondaryCaptureImageStorage, Verification

from pacs_agent.phantom.dataset import study, write_study
from pacs_agent.record import analysing, claiming, delivering, receiving
from pacs_agent.record import store as store_module
from pacs_agent.record.analysing import FindingRow, InstanceResult, ReportRow
from pacs_agent.record.store import Store
from pacs_agent.report.capture import CAPTURE_CLASS
from pacs_agent.study.eligibility import Eligibility
from pacs_agent.study.instance import Instance

STUDY = "1.4"


@pytest.fixture
def run(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """As everywhere, and no disk is too small."""
    monkeypatch.setenv("PACS_AGENT__AGENT__MIN_FREE_MB", "0")
    return run


def receive(store: Store) -> None:
    """One instance comes in."""
    facts = Instance("1.2.1", "1.5", "1.3", STUDY, patient_id="PHANTOM-1", accession_number="A1")
    receiving.Reception(store).accept(
        receiving.Receipt(facts, Eligibility("received", None), "inbox/1", "1", 1, "XR1", store.now())
    )


def analyse(store: Store, revision: int) -> None:
    """Its study is complete and analysed, the report waits for `pacs`."""
    for waiting in claiming.receiving_studies(store):
        claiming.queue_study(store, waiting, "quiet for 60 s")
    [claim] = claiming.claim_studies(store, 1, 60)
    analysing.record_analysis(
        store,
        claim,
        model=("net", "1", "abc"),
        images=[
            InstanceResult(image.instance_id, "analysed", body_part="hand", laterality="R", abnormal_probability=0.1)
            for image in claim.instances
        ],
        findings=[FindingRow("hand", "R", "analysed", "normal", 0.1, 0.5, 1, 1, None)],
        reports=[ReportRow("sr", "1.6", f"9.{revision}", "9.0", "outbox/x", {"pacs": ("waiting", None)})],
    )


def deliver(store: Store) -> None:
    """`pacs` has what waited for it."""
    for due in delivering.claim_due(store, "pacs", 10, 60):
        delivering.mark_delivered(store, due, "pacs", "0000")


@pytest.fixture
def told(store: Store) -> Store:
    """A record with one study, analysed and delivered."""
    receive(store)
    analyse(store, 1)
    deliver(store)
    return store


def test_results_are_filtered_by_words_of_the_contract(run: Run, told: Store) -> None:
    """Each filter finds the study or nothing, in each format; nothing found is no failure."""
    assert told
    code, out, _ = run("results", "--body-part", "hand", "--status", "delivered", "--format", "json")
    assert code == 0
    assert [row["accession_number"] for row in json.loads(out)] == ["A1"]
    assert run("results", "--status", "held", "--format", "json")[:2] == (0, "[]\n")
    assert run("results", "--body-part", "wrist") == (0, "", "no results\n")
    assert run("results", "--format", "csv")[1].startswith("study_instance_uid,accession_number,")
    table = run("results")[1]
    assert all(word in table for word in ("A1", "hand", "delivered", "normal", "0.10", "1 of 1"))


def test_show_lists_earlier_revisions(run: Run, told: Store) -> None:
    """With one revision no table of revisions; with two, both, and each delivery says which it is of."""
    assert "Revisions" not in run("show", "A1")[1]
    assert run("reanalyse", STUDY)[:2] == (0, "1 study queued\n")
    analyse(told, 2)
    out = run("show", STUDY)[1]
    revisions = out.partition("Revisions")[2].partition("Instances")[0]
    assert [line.split()[0] for line in revisions.splitlines() if "hand" in line] == ["1", "2"]
    deliveries = out.partition("Deliveries")[2].partition("History")[0]
    assert {tuple(line.split()[:4]) for line in deliveries.splitlines() if "pacs" in line} == {
        ("sr", "1", "pacs", "delivered"),
        ("sr", "2", "pacs", "waiting"),
    }
    [story] = json.loads(run("show", "PHANTOM-1", "--json")[1])
    assert [row["revision"] for row in story["analyses"]] == [1, 2]
    assert "the report's file is gone" in story["report"].lower()


def test_held_study_can_be_decided_with_what_is_shown(run: Run, told: Store) -> None:
    """`show` by either patient's ID finds it, and says which instance is whose."""
    facts = Instance("1.2.2", "1.5", "1.3", STUDY, patient_id="PHANTOM-2", accession_number="A1")
    receipt = receiving.Receipt(facts, Eligibility("received", None), "inbox/2", "2", 1, "XR1", told.now())
    receiving.Reception(told).accept(receipt)
    code, out, _ = run("show", "PHANTOM-2")
    assert code == 0
    assert "Whose its instances say they are" in out
    assert out.index("PHANTOM-1") < out.index("PHANTOM-2")
    assert run("show", "PHANTOM-3")[0] == 1
    [story] = json.loads(run("show", "PHANTOM-2", "--json")[1])
    assert [row["patient_id"] for row in story["identities"]] == ["PHANTOM-1", "PHANTOM-2"]
    code, out, _ = run("accept", STUDY)
    assert (code, "for patient ID PHANTOM-1, accession number A1:" in out) == (0, True)
    [detail] = [
        row["detail"] for row in json.loads(run("show", STUDY, "--json")[1])[0]["history"] if row["event"] == "accepted"
    ]
    assert detail == "instances disagree on patient id"


def test_withdrawn_once(run: Run, told: Store) -> None:
    """The first reason stands."""
    assert run("withdraw", STUDY, "--reason", "wrong side")[0] == 0
    code, _, err = run("withdraw", STUDY, "--reason", "again")
    assert (code, "withdrawn already" in err) == (1, True)
    assert "wrong side" in run("sql", "SELECT reason FROM results")[1]


def test_show_of_nothing(run: Run, told: Store) -> None:
    """Exit 1, an empty list for a program."""
    assert told
    assert run("show", "B2", "--json") == (1, "[]\n", "no study is known by 'B2'\n")


def test_withdraw_says_where_a_copy_is(run: Run, told: Store) -> None:
    """What a destination has already is not taken back there; a study that was never sent says nothing of copies."""
    assert told
    code, out, _ = run("withdraw", STUDY, "--reason", "wrong patient")
    assert (code, out.splitlines()) == (
        0,
        [f"{STUDY} is withdrawn", "a copy is already at pacs: it must be removed there"],
    )
    assert run("withdraw", "1.9", "--reason", "x") == (1, "", "1.9 is not known\n")


def test_withdraw_says_where_a_copy_may_be(run: Run, told: Store) -> None:
    """It was offered and not answered, or taken and then not kept: the withdrawal cancels it, and says so."""
    with told.write() as connection:
        connection.exec_driver_sql("UPDATE delivery SET status = 'waiting', delivered_at = NULL, attempts = 1")
        connection.exec_driver_sql(
            "INSERT INTO delivery (report_id, destination, status, attempts, refused_attempts, delivered_at) VALUES "
            "(1, 'kept', 'parked', 5, 0, '2026-01-05T10:00:00.000Z'), (1, 'refused', 'parked', 1, 1, NULL)"
        )
    code, out, _ = run("withdraw", STUDY, "--reason", "wrong patient")
    remedy = "it must be removed there"
    assert (code, out.splitlines()[1:]) == (
        0, [f"a copy is already at kept: {remedy}", f"a copy may be at pacs: {remedy}"],
    )  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [
        ("withdraw", STUDY, "--reason", "\udcff"),
        ("withdraw", "\udcff", "--reason", "x"),
        ("reanalyse", "\udcff"),
        ("show", "\udcff"),
        ("results", "--since", "0001-01-01T00:00:00+14:00"),
    ],
)
def test_bytes_that_are_no_text_and_no_time(run: Run, told: Store, arguments: tuple[str, ...]) -> None:
    """Used wrongly: exit 2."""
    assert told
    code, out, err = run(*arguments)
    assert (code, out, "Traceback" in err) == (2, "", False)


@pytest.mark.parametrize("mode", ["live", "silent"])
def test_withdraw_with_a_rejection_note(run: Run, told: Store, tmp_path: Path, mode: str) -> None:
    """Before or after the withdrawal it can be said, once; who gets one is told, and what a note cannot reach."""
    delivering.destinations_since(told, ["pacs", "gone"])
    (tmp_path / "pacs-agent.toml").write_text(
        f'[[destination]]\nname = "pacs"\nae_title = "P"\nhost = "h"\nport = 1\nmode = "{mode}"'
    )
    with told.write() as connection:
        connection.exec_driver_sql(
            "INSERT INTO delivery (report_id, destination, status, attempts, delivered_at) "
            "VALUES (1, 'gone', 'delivered', 1, '2026-01-05T10:00:00.000Z')"
        )
    code, out, _ = run("withdraw", STUDY, "--reason", "wrong patient")
    gone = "a copy is already at gone: it must be removed there"
    assert (code, out.splitlines()) == (
        0,
        [f"{STUDY} is withdrawn", gone, "a copy is already at pacs: --reject sends a rejection note of it"],
    )
    code, out, _ = run("withdraw", STUDY, "--reason", "wrong patient", "--reject")
    held = ", held until `release`" if mode == "silent" else ""
    assert (code, out.splitlines()) == (
        0,
        [f"{STUDY} is withdrawn", f"pacs gets a rejection note of what it has{held}", gone],
    )
    code, _, err = run("withdraw", STUDY, "--reason", "wrong patient", "--reject")
    assert (code, "no destination has anything that no rejection note names" in err) == (1, True)
    assert "pacs: wrong patient" in run("show", STUDY)[1].partition("History")[2]


def test_withdraw_before_delivery(run: Run, store: Store) -> None:
    """Nothing was delivered: one line."""
    receive(store)
    analyse(store, 1)
    assert run("withdraw", STUDY, "--reason", "wrong patient")[:2] == (0, f"{STUDY} is withdrawn\n")


def test_decisions_are_counted(run: Run, told: Store) -> None:
    """In words, and as JSON for a program; what cannot be done is exit 1."""
    assert told
    assert run("retry")[:2] == (0, "to be tried again: 0 deliveries, 0 studies\n")
    assert json.loads(run("retry", "--json")[1]) == {"deliveries": 0, "studies": 0}
    assert json.loads(run("release", "--since", "2026-01-01", "--json")[1]) == {"deliveries": 0}
    assert run("accept", STUDY) == (1, "", f"{STUDY} is not a held study\n")
    code, out, err = run("reanalyse", STUDY, "1.9", "--json")
    answer = json.loads(out)
    assert (code, answer["queued"], list(answer["refused"])) == (1, [STUDY], ["1.9"])
    assert err.startswith("1.9 ")


def test_sql_refuses_two_statements(run: Run, told: Store) -> None:
    """One line and exit 2, as for a wrong one; rows as JSON."""
    assert told
    for statement in ("SELECT 1; SELECT 2", "SELEKT 1", ";", "DELETE FROM event"):
        code, out, err = run("sql", statement)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("pacs-agent: SQL: ")
    assert json.loads(run("sql", "SELECT finding FROM results", "--format", "json")[1]) == [{"finding": "normal"}]


def test_status_before_the_first_start(run: Run) -> None:
    """No daemon and no database: exit 1, and every key is there."""
    code, out, _ = run("status", "--json")
    found = json.loads(out)
    assert code == 1
    assert found["problems"][0] == "the daemon is not running"
    assert "there is no database" in found["problems"][1]
    assert {(row["queue"], row["status"]) for row in found["queues"]} == {
        ("studies", status) for status in ("receiving", "queued", "held", "failed")
    }


def test_status_shows_queues_callers_and_destinations(
    run: Run, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Depth and oldest of every queue in the contract's words, the last receipt of each caller, each destination."""
    (tmp_path / "pacs-agent.toml").write_text('[[destination]]\nname = "pacs"\nae_title = "P"\nhost = "h"\nport = 1')
    receive(store)
    analyse(store, 1)
    assert run("pause", "pacs")[:2] == (0, "pacs is paused\n")
    monkeypatch.setattr("pacs_agent.cli.condition.running_state", lambda _: {"problem": "no memory"})
    code, out, _ = run("status", "--json")
    found = json.loads(out)
    assert (code, found["problems"]) == (1, ["the analysis waits: no memory"])
    depths = {(row["queue"], row["destination"], row["status"]): row["depth"] for row in found["queues"]}
    assert {name for name, depth in depths.items() if depth} == {("deliveries", "pacs", "waiting")}
    assert ("deliveries", "pacs", "parked") in depths
    assert all((row["oldest"] is None) == (row["depth"] == 0) for row in found["queues"])
    assert [(row["calling_ae_title"], row["instances"]) for row in found["callers"]] == [("XR1", 1)]
    assert found["callers"][0]["last_receipt"].endswith("Z")
    assert found["destinations"] == [
        {
            "name": "pacs", "mode": "live", "ae_title": "P", "host": "h", "port": 1, "folder": None, "paused": True,
            "unreachable_since": None, "next_attempt_at": None, "last_error": None,
        }
    ]  # fmt: skip


def test_status_says_that_a_destination_is_out_of_reach(run: Run, store: Store, tmp_path: Path) -> None:
    """Since when and why; it is tried again for good and needs no person."""
    (tmp_path / "pacs-agent.toml").write_text('[[destination]]\nname = "pacs"\nae_title = "P"\nhost = "h"\nport = 1')
    delivering.destinations_since(store, ["pacs"])
    delivering.mark_unreachable(store, "pacs", [], "cannot be reached", store.clock())
    found = json.loads(run("status", "--json")[1])
    [target] = found["destinations"]
    assert target["last_error"] == "cannot be reached"
    assert target["unreachable_since"].endswith("Z")
    assert found["problems"] == ["the daemon is not running"]
    assert "pacs: P@h:1, live, out of reach since " in run("status")[1]


def test_status_counts_what_needs_a_person(run: Run, store: Store) -> None:
    """A parked delivery, in the singular, and where."""
    receive(store)
    analyse(store, 1)
    [due] = delivering.claim_due(store, "pacs", 10, 60)
    delivering.park(store, due, "pacs", "0122", "refused")
    code, out, _ = run("status")
    assert code == 1
    assert "needs a person: 1 delivery parked at pacs\n" in out


def test_status_says_that_the_disk_is_full(run: Run, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where no floor is set: nothing is taken then."""
    receive(store)
    monkeypatch.setattr("pacs_agent.cli.condition.free_mb", lambda _: (0, Path("/")))
    code, out, _ = run("status")
    assert code == 1
    assert "needs a person: 0 MB free, the floor is 1 MB\n" in out


def test_a_locked_database_is_one_line(run: Run, told: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process holds the write lock: exit 1, the answer is no."""
    monkeypatch.setattr(store_module, "BUSY_TIMEOUT_S", 0.05)
    other = sqlite3.connect(told.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        assert run("pause", "analysis") == (1, "", "pacs-agent: the database: database is locked\n")
    finally:
        other.close()
    assert run("pause", "analysis")[0] == 0


@pytest.mark.parametrize("command", [["results"], ["pause", "analysis"], ["status"], ["show", "A1"]])
def test_a_file_that_is_no_database_is_one_line(run: Run, data_dir: Path, command: list[str]) -> None:
    """Read or written: exit 1, one line that names the file."""
    (data_dir / "pacs-agent.db").write_bytes(b"garbage" * 100)
    code, out, err = run(*command)
    assert (code, out) == (1, "")
    remedy = "put a backup back (`pacs-agent restore`), or make it anew from inbox and outbox (`pacs-agent rebuild`)"
    database = data_dir / "pacs-agent.db"
    assert err == f"pacs-agent: database {database} is damaged (file is not a database): {remedy}\n"


def test_a_data_directory_that_cannot_be_made_is_one_line(
    run: Run, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`serve` under a file: exit 1 and the path, no traceback."""
    (data_dir / "file").touch()
    monkeypatch.setenv("PACS_AGENT__AGENT__DATA_DIR", str(data_dir / "file" / "data"))
    assert run("serve") == (1, "", f"pacs-agent: {data_dir / 'file' / 'data'}: Not a directory\n")


def test_send_says_how_many(run: Run, make_listener: Callable[..., Any], tmp_path: Path) -> None:
    """Counts on stdout, as JSON too; a file that is no DICOM is a line on stderr and exit 1."""
    listener = make_listener()
    write_study(study("wrist", seed=1, abnormal=False, views=2), tmp_path / "study")
    to = f"PACS_AGENT@127.0.0.1:{listener.port}"
    assert run("send", "study", "--to", to) == (0, "2 stored, 0 not stored\n", "")
    (tmp_path / "study" / "notes.txt").write_text("x")
    code, out, err = run("send", "study", "--to", to, "--json")
    answer = json.loads(out)
    assert (code, answer["stored"], answer["not_stored"], answer["failure"]) == (1, 2, 1, None)
    assert [problem["file"] for problem in answer["problems"]] == ["study/notes.txt"]
    assert err.startswith("study/notes.txt: ")


def test_send_to_nobody_and_to_one_who_rejects(run: Run, make_listener: Callable[..., Any], tmp_path: Path) -> None:
    """Exit 1 and the reason in one line: it was used rightly, and the answer is no."""
    write_study(study("wrist", seed=1, abnormal=False, views=1), tmp_path / "study")
    nobody = f"NOBODY@127.0.0.1:{free_port()}"
    code, out, err = run("send", "study", "--to", nobody)
    assert (code, err.count("\n")) == (1, 1)
    assert out.startswith("0 stored")
    assert err.startswith(f"pacs-agent: {nobody}")
    code, out, err = run("send", "study", "--to", f"OTHER@127.0.0.1:{make_listener().port}", "--json")
    assert (code, json.loads(out)["stored"], err.splitlines()[-1].split()[0]) == (1, 0, "pacs-agent:")
    assert "rejected" in json.loads(out)["failure"]


def test_check_says_what_to_do_without_heat_maps(run: Run, tmp_path: Path) -> None:
    """A PACS that takes reports and no pictures: one failed line, which names the setting that leaves them out."""
    ae = AE(ae_title="PACS")
    ae.add_supported_context(Verification)
    ae.add_supported_context(Comprehensive3DSRStorage)
    server = ae.start_server(("127.0.0.1", 0), block=False)
    settings = tmp_path / "pacs-agent.toml"
    settings.write_text(
        '[listener]\nport = 0\n[[destination]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\n'
        f"port = {server.server_address[1]}\n"
    )
    try:
        code, out, _ = run("check")
        settings.write_text(settings.read_text() + 'objects = ["sr"]\n')
        again = run("check")[0]
    finally:
        server.shutdown()
    assert (code, again) == (1, 0)
    assert [line for line in out.splitlines() if line.startswith("FAIL")] == [
        "FAIL destination pacs: capture: Secondary Capture Image Storage: the destination does not accept this SOP "
        'class; objects = ["sr"] at this destination sends no heat maps there'
    ]


@pytest.mark.parametrize("accepts_sr", [True, False])
def test_check_offers_what_would_be_sent(run: Run, tmp_path: Path, accepts_sr: bool) -> None:
    """C-ECHO and the class of each object that the settings make, a line each."""
    ae = AE(ae_title="PACS")
    ae.add_supported_context(Verification)
    ae.add_supported_context(CAPTURE_CLASS)
    if accepts_sr:
        ae.add_supported_context(Comprehensive3DSRStorage)
    ae.add_supported_context(SecondaryCaptureImageStorage)
    server = ae.start_server(("127.0.0.1", 0), block=False)
    (tmp_path / "pacs-agent.toml").write_text(
        '[listener]\nport = 0\n[[destination]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\n'
        f"port = {server.server_address[1]}\n"
    )
    try:
        code, out, _ = run("check", "--json")
    finally:
        server.shutdown()
    lines = {line["check"]: line for line in json.loads(out)}
    assert code == (0 if accepts_sr else 1)
    assert lines["destination pacs: C-ECHO"]["ok"]
    assert lines["destination pacs: sr"]["ok"] is accepts_sr
    assert lines["destination pacs: capture"]["ok"]
    assert "Comprehensive 3D SR" in lines["destination pacs: sr"]["detail"]
