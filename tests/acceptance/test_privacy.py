"""What a whole run writes outside database, received instances and objects: nobody's name, ID or birth date."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from deliveries import Pacs
from peers import DaemonProcess, Orthanc, free_port, wait_for, write_config
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import Comprehensive3DSRStorage, JPEG2000Lossless, SecondaryCaptureImageStorage, generate_uid
from pynetdicom import AE, evt
from radiographs import cr, hand

pytestmark = pytest.mark.orthanc

PERSON = {
    "PatientName": "ZYGOTOVSKI^MARGUERITE",
    "PatientID": "PID7741903Q",
    "PatientBirthDate": "19310417",
    "AccessionNumber": "ACCQ55501",
    "OtherPatientIDs": "OTHER7741903",
    "PatientComments": "Zygotovski, Marguerite",
    "StudyDescription": "Marguerite Zygotovski right hand",
    "SeriesDescription": "ZYGOTOVSKI PA",
    "StationName": "ROOM3",  # the page for export names stations
    "ReferringPhysicianName": "PRZEWALSKI^OTTO",
    "OperatorsName": "PRZEWALSKI",
    "InstitutionName": "St Przewalski",
}
MARKS = [mark.encode() for mark in ("zygotovski", "marguerite", "7741903", "19310417", "accq55501", "przewalski")]
LOUD = '[log]\nlevel = "debug"\nformat = "{form}"\n[report]\nobjects = ["sr", "capture"]'


def refuse(_event: evt.Event) -> Dataset:
    """A status with a comment that names the patient, as a PACS may send it."""
    answer = Dataset()
    answer.Status, answer.ErrorComment = 0xA900, f"{PERSON['PatientName']} {PERSON['PatientID']}"
    return answer


def odd(**elements: object) -> list[FileDataset]:
    """Instances that are refused, held or fail, of the same person."""
    corrupt = cr(**PERSON)
    corrupt.compress(JPEG2000Lossless, generate_instance_uid=False)
    content = bytearray(corrupt.PixelData)
    content[40:] = b"\x55" * (len(content) - 40)
    corrupt.PixelData = bytes(content)
    study = generate_uid()
    other = PERSON | {"PatientID": "PID7741903Z", "AccessionNumber": "ACCQ55501B"}
    return [
        corrupt,
        hand(seed=2, **PERSON | {"StudyInstanceUID": study}),
        hand(seed=3, **other | {"StudyInstanceUID": study}),  # held: whose is it?
        cr(**PERSON | {"BodyPartExamined": "ZYGOTOVSKI", "StudyDescription": "Zygotovski"}),
        cr(**PERSON | {"PatientBirthDate": "19310417-not-a-date", "PatientName": "ZYGOTOVSKI=\\=^^^^^^^"}),
        cr(**PERSON | {"NumberOfFrames": "1", "WindowCenter": "1e9", "Rows": 60_000}),
        cr(**PERSON | {"SeriesInstanceUID": "zygotovski"}),  # no UID: C000
    ]


def send(port: int, instances: list[FileDataset], calling: str = "XR1", called: str = "PACS_AGENT") -> list[int]:
    """C-STORE each on an association of its own; the statuses."""
    statuses = []
    for ds in instances:
        ae = AE(ae_title=calling)
        ae.add_requested_context(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID)
        assoc = ae.associate("127.0.0.1", port, ae_title=called)
        if assoc.is_established:
            statuses.append(int(assoc.send_c_store(ds).Status))
            assoc.release()
    return statuses


@pytest.fixture
def daemon(request: pytest.FixtureRequest, tmp_path: Path, orthanc: Orthanc) -> Iterator[DaemonProcess]:
    """A daemon with a umask of 000; a PACS, one that is away, one that names whom it refuses, a folder."""
    form, arguments = request.param
    for name in ("folder", "tmp"):
        (tmp_path / name).mkdir()
    port, rude = free_port(), Pacs()
    config = write_config(tmp_path, port, orthanc, LOUD.format(form=form))
    with config.open("a") as more:
        more.write(f'[[destination]]\nname = "folder"\nfolder = "{tmp_path / "folder"}"\n')
        more.write(f'[[destination]]\nname = "away"\nae_title = "AWAY"\nhost = "127.0.0.1"\nport = {free_port()}\n')
        more.write(f'[[destination]]\nname = "rude"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {rude.port}\n')
    rude.answer = refuse
    rude.start(Comprehensive3DSRStorage, SecondaryCaptureImageStorage)
    running = DaemonProcess(config, port, arguments=arguments, umask=0, environment={"TMPDIR": str(tmp_path / "tmp")})
    running.start()
    yield running
    if running.process and running.process.poll() is None:
        running.kill_all()
    rude.stop()


def full_run(daemon: DaemonProcess, folder: Path) -> None:
    """Good, hostile, held and failing studies, bytes that are no DICOM, a death of the analysis process, a page."""
    good = hand(seed=1, **PERSON)
    assert send(daemon.port, [good]) == [0]
    statuses = send(daemon.port, odd())
    assert 0xC000 in statuses
    send(daemon.port, [good], called="NOBODY")
    with socket.create_connection(("127.0.0.1", daemon.port)) as hostile:
        hostile.sendall(b"ZYGOTOVSKI^MARGUERITE 19310417 PID7741903Q" * 10)
    state = json.loads((folder / "data" / "daemon.json").read_text())
    os.kill(state["worker_pid"], signal.SIGKILL)
    assert send(daemon.port, [hand(seed=5, **PERSON)]) == [0]
    settled = "SELECT COUNT(*) AS n FROM results WHERE status IN ('receiving', 'queued')"
    wait_for(lambda: daemon.sql(settled)[0]["n"] == 0, 120, "the end of every study")
    wait_for(lambda: daemon.sql("SELECT 1 FROM deliveries WHERE destination = 'pacs' AND status = 'delivered'"), 60)
    wait_for(lambda: daemon.sql("SELECT 1 FROM deliveries WHERE destination = 'folder' AND status = 'delivered'"), 60)
    wait_for(lambda: daemon.sql("SELECT 1 FROM deliveries WHERE last_error LIKE 'cannot be reached%'"), 60)
    wait_for(lambda: daemon.sql("SELECT 1 FROM deliveries WHERE destination = 'rude' AND status = 'parked'"), 60)
    assert {row["status"] for row in daemon.sql("SELECT status FROM results")} >= {"held", "unsupported"}
    truth = folder / "truth.csv"
    truth.write_text(f"study_instance_uid,body_part,laterality,label\n{good.StudyInstanceUID},hand,R,normal\n")
    assert daemon.run("truth", "import", str(truth)).returncode == 0
    made = daemon.run("site-report", "--html", str(folder / "site.html"))
    assert (folder / "site.html").is_file(), made.stderr
    assert daemon.run("backup", str(folder / "copy.db")).returncode == 0
    exported = daemon.run("export", "--deidentify", "--out", str(folder / "export.csv"))
    assert exported.returncode == 0, exported.stderr
    for command in (("status", "--json"), ("status",), ("check",)):  # what a monitor keeps
        (folder / f"{'-'.join(command)}.txt").write_text("".join(daemon.run(*command).stdout))


def written(folder: Path) -> Iterator[tuple[str, bytes]]:
    """The name of everything, and the content of all but what may name patients."""
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        may_name = name.startswith(("data/pacs-agent.db", "copy.db", "data/inbox/", "data/outbox/", "folder/"))
        yield name, b"" if may_name or not path.is_file() else path.read_bytes()


def found(folder: Path) -> list[tuple[str, str]]:
    """Where a mark is, in any case of letters."""
    return [
        (name, mark.decode())
        for name, content in written(folder)
        for mark in MARKS
        if mark in name.lower().encode() or mark in content.lower()
    ]


def check_modes(folder: Path) -> None:
    """Files 0600 and folders 0700, though the umask is 000; in a folder destination its group reads."""
    data = folder / "data"
    modes = {
        str(path.relative_to(folder)): oct(path.stat().st_mode & 0o777)
        for path in (data, *data.rglob("*"), folder / "copy.db", folder / "export.csv")
        if path.exists()  # a journal, a temporary file
    }
    names = ("pacs-agent.db", "pacs-agent.db-wal", "pacs-agent.db-shm", "lock", "export.key", "daemon.json")
    assert {f"data/{name}" for name in names} <= modes.keys()
    for name, mode in modes.items():
        assert mode == ("0o700" if (folder / name).is_dir() else "0o600"), name
    assert {path.stat().st_mode & 0o777 for path in (folder / "folder").glob("*.dcm")} == {0o640}


@pytest.mark.parametrize("daemon", [("console", ()), ("json", ())], indirect=True, ids=["console", "json"])
def test_nothing_that_is_written_names_a_person(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Log at debug, stderr, names of files, state of the daemon, pages and rows for export, temporary files.

    And nobody else can read the rest.
    """
    full_run(daemon, tmp_path)
    check_modes(tmp_path)
    assert found(tmp_path) == []
    daemon.stop()
    assert found(tmp_path) == []
    log = daemon.log_path.read_text()
    for line in (
        "instance received",
        "instance refused",
        "object delivered",
        "destination not reached",
        "refused and parked",
        "stopped",
    ):
        assert line in log  # it was a whole run
    objects = [path.read_bytes().lower() for path in tmp_path.glob("data/outbox/*.dcm")]
    assert any(MARKS[0] in each for each in objects)  # the marks are where they may be


@pytest.mark.parametrize("daemon", [("json", ("--log-phi",))], indirect=True, ids=["log-phi"])
def test_log_phi_names_patients_and_says_so_once(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Asked for, the line of a receipt has the patient's ID; nothing else that is written has."""
    assert send(daemon.port, [hand(seed=1, **PERSON)]) == [0]
    daemon.stop()
    lines = [json.loads(line) for line in daemon.log_path.read_text().splitlines()]
    [receipt] = [line for line in lines if line["event"] == "instance received"]
    assert receipt["phi"] == {"patient_id": PERSON["PatientID"], "accession_number": PERSON["AccessionNumber"]}
    assert sum("--log-phi is on" in line["event"] for line in lines) == 1
    assert {name for name, _ in found(tmp_path)} == {daemon.log_path.name}
