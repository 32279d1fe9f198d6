"""The main job from outside: a modality sends, the daemon runs as a process, Orthanc is the PACS."""

import io
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import highdicom as hd
import pytest
from peers import DaemonProcess, Orthanc, dcmtk, free_port, wait_for, write_config
from pydicom import dcmread

from pacs_agent.phantom.dataset import study, write_study
from pacs_agent.phantom.lesion import Lesion

pytestmark = [pytest.mark.orthanc, pytest.mark.dcmtk]

HAND_STUDY = "1.2.840.113564.3.1.2.10.111.22.333.4567890123456789012"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, orthanc: Orthanc) -> Iterator[DaemonProcess]:
    """A daemon with Orthanc as its destination."""
    port = free_port()
    running = DaemonProcess(write_config(tmp_path_factory.mktemp("agent"), port, orthanc), port)
    running.start()
    yield running
    assert running.stop() == 0


def test_real_files_become_results_and_a_report(
    daemon: DaemonProcess, orthanc: Orthanc, samples: Path, tmp_path: Path
) -> None:
    """HAND gives a result and a valid SR in Orthanc; EXTREMITY gives `unsupported` with its reason and no report."""
    send = [dcmtk("dcmsend"), "127.0.0.1", str(daemon.port), "-aec", "PACS_AGENT", "--scan-directories"]
    subprocess.run([*send, str(samples / "dicom")], check=True, capture_output=True, timeout=60)
    wait_for(
        lambda: all(row["status"] in ("delivered", "unsupported") for row in daemon.sql("SELECT status FROM results")),
        60,
        "every study's end",
    )
    rows = {row["study_instance_uid"]: row for row in daemon.sql("SELECT * FROM results")}
    hand = rows.pop(HAND_STUDY)
    assert (hand["body_part"], hand["laterality"], hand["status"]) == ("hand", "R", "delivered")
    # The model that ships has never seen a real hand, and its guard says so.
    assert (hand["finding"], hand["abnormal_probability"], hand["images_analysed"]) == ("undetermined", None, 0)
    assert "unlike those that the model was trained on" in hand["reason"]
    assert rows, "the EXTREMITY files are a study of their own"
    for row in rows.values():
        assert (row["status"], row["finding"], row["report_sop_instance_uid"]) == ("unsupported", None, None)
        assert "lower leg" in row["reason"]  # EXTREMITY says too little; the processing code says what it is

    (report,) = orthanc.instances("SR")
    content = orthanc.file(report)
    file = tmp_path / "report.dcm"
    file.write_bytes(content)
    said = subprocess.run([dcmtk("dciodvfy"), str(file)], capture_output=True, text=True, check=False)
    assert "Error" not in said.stdout + said.stderr
    sr = hd.sr.srread(file)
    assert sr.SOPInstanceUID == hand["report_sop_instance_uid"]
    stored = next((daemon.config.parent / "data" / "outbox").glob("*.dcm")).read_bytes()
    assert dcmread(io.BytesIO(stored)) == dcmread(io.BytesIO(content))


def test_show_tells_the_story(daemon: DaemonProcess, samples: Path) -> None:
    """`show` by Study Instance UID gives instances, report text, deliveries and history."""
    assert samples
    (story,) = json.loads(daemon.run("show", HAND_STUDY, "--json").stdout)
    assert [row["status"] for row in story["instances"]] == ["analysed"]
    assert "unverified" in story["report"].lower()
    assert [row["destination"] for row in story["deliveries"]] == ["pacs"]
    assert {"first instance received", "complete", "analysed", "delivered"} <= {
        row["event"] for row in story["history"]
    }
    assert daemon.run("show", "no such study").returncode == 1


def test_a_second_daemon_is_refused(daemon: DaemonProcess) -> None:
    """A data directory belongs to one daemon."""
    second = daemon.run("serve")
    assert second.returncode == 2
    assert "another daemon" in second.stderr
    assert "Traceback" not in second.stderr


def test_reanalyse_makes_a_successor(daemon: DaemonProcess, orthanc: Orthanc, samples: Path) -> None:
    """`reanalyse` gives a second revision whose report names the first as its predecessor."""
    assert samples
    first = daemon.sql(f"SELECT report_sop_instance_uid AS uid FROM results WHERE study_instance_uid = '{HAND_STUDY}'")
    assert daemon.run("reanalyse", HAND_STUDY).returncode == 0
    query = f"SELECT * FROM results WHERE study_instance_uid = '{HAND_STUDY}' AND revision = 2 AND status = 'delivered'"
    (row,) = wait_for(lambda: daemon.sql(query), 60, "the second revision")
    reports = [dcmread(io.BytesIO(orthanc.file(each))) for each in orthanc.instances("SR")]
    (second,) = [ds for ds in reports if ds.SOPInstanceUID == row["report_sop_instance_uid"]]
    named = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert named.ReferencedSOPInstanceUID == first[0]["uid"]
    assert len(reports) == 2


def test_status_and_check(daemon: DaemonProcess) -> None:
    """A healthy daemon satisfies the monitor and `check` finds Orthanc."""
    status = daemon.run("status", "--json")
    assert status.returncode == 0, status.stdout
    assert json.loads(status.stdout)["daemon"]["port"] == daemon.port
    checked = daemon.run("check")
    assert checked.returncode == 0, checked.stdout
    assert "answers C-ECHO" in checked.stdout


def test_logs_name_no_patient(daemon: DaemonProcess, samples: Path) -> None:
    """Nothing that identifies a patient is logged."""
    ds = dcmread(samples / "dicom" / "HAND_kodak_cr500_J2KR.dcm", stop_before_pixels=True)
    log = daemon.log_path.read_text()
    assert "study complete" in log
    for value in (str(ds.PatientName), str(ds.PatientID), str(ds.PatientBirthDate)):
        assert value not in log


def test_an_abnormal_phantom_is_shown_in_the_pacs(daemon: DaemonProcess, orthanc: Orthanc, tmp_path: Path) -> None:
    """Orthanc takes the heat map of each image, byte for byte ours and valid, and the report that names them."""
    before = set(orthanc.instances("OT"))
    images = study("forearm", seed=7001, abnormal=True, views=2, lesion=Lesion("plate", 0.9), kind="DX")
    uid = images[0].StudyInstanceUID
    files = write_study(images, tmp_path / "modality")
    send = [dcmtk("dcmsend"), "127.0.0.1", str(daemon.port), "-aec", "PACS_AGENT"]
    subprocess.run([*send, *map(str, files)], check=True, capture_output=True, timeout=60)
    query = f"SELECT * FROM results WHERE study_instance_uid = '{uid}' AND status = 'delivered'"
    (row,) = wait_for(lambda: daemon.sql(query), 60, "the phantom's report")
    assert (row["body_part"], row["finding"]) == ("forearm", "abnormal")

    made = [orthanc.file(each) for each in set(orthanc.instances("OT")) - before]
    assert len(made) == 2
    captures = {}
    for number, content in enumerate(made):
        file = tmp_path / f"capture{number}.dcm"
        file.write_bytes(content)
        said = subprocess.run([dcmtk("dciodvfy"), str(file)], capture_output=True, text=True, check=False)
        assert "Error" not in said.stdout + said.stderr
        ds = dcmread(file)
        captures[str(ds.SOPInstanceUID)] = ds
        stored = daemon.config.parent / "data" / "outbox" / f"{ds.SOPInstanceUID}.dcm"
        assert dcmread(stored) == ds
        assert max(ds.Rows, ds.Columns) <= 2048
    sources = {str(ds.SourceImageSequence[0].ReferencedSOPInstanceUID) for ds in captures.values()}
    assert sources == {str(ds.SOPInstanceUID) for ds in images}

    kinds = daemon.sql(f"SELECT object FROM deliveries WHERE study_instance_uid = '{uid}'")
    assert sorted(each["object"] for each in kinds) == ["capture", "capture", "sr"]
    report = dcmread(daemon.config.parent / "data" / "outbox" / f"{row['report_sop_instance_uid']}.dcm")
    evidence = {
        str(reference.ReferencedSOPInstanceUID)
        for series in report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
        for reference in series.ReferencedSOPSequence
    }
    assert evidence == sources | set(captures)
    (story,) = json.loads(daemon.run("show", uid, "--json").stdout)
    assert story["report"].count("heat map") == 2
    assert {each["revision"] for each in story["deliveries"]} == {1}
