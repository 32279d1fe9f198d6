"""Storage commitment with a real PACS: Orthanc reports on an association of its own, which is the daemon's listener."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from peers import DaemonProcess, Orthanc, free_port, wait_for, write_config
from radiographs import cr

from pacs_agent.deliver.files import Peer, send_files

pytestmark = pytest.mark.orthanc


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, orthanc: Orthanc) -> Iterator[DaemonProcess]:
    """A daemon with Orthanc as its destination, which knows where our listener is; and a folder."""
    port, folder = free_port(), tmp_path_factory.mktemp("agent")
    orthanc.send("PUT", "/modalities/agent", {"AET": "PACS_AGENT", "Host": "127.0.0.1", "Port": port})
    config = write_config(folder, port, orthanc)
    (folder / "results").mkdir()
    config.write_text(
        config.read_text() + "storage_commitment = true\ncommitment_timeout_seconds = 4\n"
        f'[[destination]]\nname = "files"\nfolder = "{folder / "results"}"\n'
    )
    running = DaemonProcess(config, port)
    running.start()
    yield running
    assert running.stop() == 0


def send(daemon: DaemonProcess, folder: Path, seed: int) -> str:
    """One image of a study of its own; its Study Instance UID."""
    ds = cr(seed=seed)
    file = folder / f"{seed}.dcm"
    ds.save_as(file, enforce_file_format=True)
    assert [problem for *_, problem in send_files([file], Peer("PACS_AGENT", "127.0.0.1", daemon.port), "XR1")] == [
        None
    ]
    return str(ds.StudyInstanceUID)


def delivery(daemon: DaemonProcess, study: str, status: str) -> dict[str, object]:
    """The row of `deliveries` at Orthanc once it has that status."""
    sql = f"SELECT * FROM deliveries WHERE study_instance_uid = '{study}' AND destination = 'pacs'"
    [row] = wait_for(
        lambda: [row for row in daemon.sql(sql) if row["status"] == status], 60, f"{status}: {daemon.sql(sql)}"
    )
    return row


def test_orthanc_commits(daemon: DaemonProcess, tmp_path: Path) -> None:
    """What Orthanc took becomes `committed`, with the time; the study stays `delivered`; the history says both."""
    study = send(daemon, tmp_path, 1)
    row = delivery(daemon, study, "committed")
    assert row["committed_at"] >= row["delivered_at"]
    assert (row["attempts"], row["last_status"], row["last_error"]) == (1, "0000", None)
    sql = "SELECT status FROM results"  # the folder may still be at it
    wait_for(lambda: daemon.sql(sql) == [{"status": "delivered"}], 30, "the folder's copy")
    [story] = json.loads(daemon.run("show", study, "--json").stdout)
    assert {"delivered", "committed"} <= {event["event"] for event in story["history"]}


def test_folder_has_the_stored_bytes(daemon: DaemonProcess, tmp_path: Path) -> None:
    """The Part 10 file there is the one of the outbox, and nothing else is there."""
    study = send(daemon, tmp_path, 2)
    delivery(daemon, study, "committed")
    sql = "SELECT sop_instance_uid FROM deliveries WHERE destination = 'files' AND status = 'delivered'"
    rows = wait_for(lambda: [row for row in [daemon.sql(sql)] if len(row) == 2], 30, "both files")[0]
    data = daemon.config.parent
    there = {path.name: path.read_bytes() for path in (data / "results").iterdir()}
    kept = {path.name: path.read_bytes() for path in (data / "data" / "outbox").iterdir()}
    assert there == kept
    assert set(there) == {f"{row['sop_instance_uid']}.dcm" for row in rows}


def test_what_orthanc_lost_goes_again(daemon: DaemonProcess, orthanc: Orthanc, tmp_path: Path) -> None:
    """Orthanc's word goes astray, and then it has lost the report: the same object goes again, and is there once."""
    modality = {"AET": "PACS_AGENT", "Host": "127.0.0.1", "Port": free_port()}
    orthanc.send("PUT", "/modalities/agent", modality)
    study = send(daemon, tmp_path, 3)
    uid = delivery(daemon, study, "delivered")["sop_instance_uid"]

    def there() -> list[str]:
        found = orthanc.get("/instances?expand")
        return [each["ID"] for each in found if each["MainDicomTags"]["SOPInstanceUID"] == uid]

    [lost] = there()
    orthanc.send("DELETE", f"/instances/{lost}")
    orthanc.send("PUT", "/modalities/agent", {**modality, "Port": daemon.port})
    row = delivery(daemon, study, "committed")
    assert row["attempts"] >= 2
    assert len(there()) == 1
    failed = f"SELECT detail FROM events WHERE event = 'commitment failed' AND sop_instance_uid = '{uid}'"
    assert all(event["detail"].endswith("it goes again") for event in daemon.sql(failed))
    assert daemon.sql(failed)


def test_check_offers_the_class(daemon: DaemonProcess) -> None:
    """`check` has a line for storage commitment and one for the folder, both good."""
    checked = json.loads(daemon.run("check", "--json").stdout)
    lines = {line["check"]: line["ok"] for line in checked}
    assert lines["destination pacs: storage commitment"] is True
    assert lines["destination files: folder"] is True
