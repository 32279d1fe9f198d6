"""Corrections from outside: withdrawn with a rejection note, analysed again, by another bundle; the PACS is Orthanc."""

import hashlib
import io
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peers import DaemonProcess, Orthanc, dcmtk, free_port, wait_for, write_config
from pydicom import dcmread
from pydicom.dataset import Dataset
from safetensors.numpy import load_file, save_file

from pacs_agent.analyse.bundle import SHIPPED
from pacs_agent.deliver.files import Peer, send_files
from pacs_agent.phantom.dataset import study, write_study
from pacs_agent.phantom.lesion import Lesion
from pacs_agent.study.instance import Instance

pytestmark = [pytest.mark.orthanc, pytest.mark.dcmtk]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, orthanc: Orthanc) -> Iterator[DaemonProcess]:
    """A daemon with Orthanc, which knows our listener, as its destination."""
    port = free_port()
    orthanc.send("PUT", "/modalities/agent", {"AET": "PACS_AGENT", "Host": "127.0.0.1", "Port": port})
    running = DaemonProcess(write_config(tmp_path_factory.mktemp("agent"), port, orthanc), port)
    running.start()
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def abnormal(daemon: DaemonProcess, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A study whose two heat maps and report Orthanc has."""
    images = study("forearm", seed=7001, abnormal=True, views=2, lesion=Lesion("plate", 0.9), kind="DX")
    folder = tmp_path_factory.mktemp("modality")
    write_study(images, folder)
    sent = list(send_files([folder], Peer("PACS_AGENT", "127.0.0.1", daemon.port), "XR1"))
    assert [problem for *_, problem in sent] == [None, None]
    uid = str(images[0].StudyInstanceUID)
    delivered(daemon, uid, 1)
    return uid


def delivered(daemon: DaemonProcess, uid: str, revision: int) -> dict[str, Any]:
    """The study's result once that revision is delivered."""
    sql = f"SELECT * FROM results WHERE study_instance_uid = '{uid}' AND revision = {revision} AND status = 'delivered'"
    [row] = wait_for(lambda: daemon.sql(sql), 60, f"revision {revision}")
    return dict(row)


def there(orthanc: Orthanc, modality: str) -> dict[str, Dataset]:
    """What Orthanc has of a modality, by its identifier."""
    return {each: dcmread(io.BytesIO(orthanc.file(each))) for each in orthanc.instances(modality)}


def test_rejection_note_in_the_pacs(daemon: DaemonProcess, orthanc: Orthanc, abnormal: str, tmp_path: Path) -> None:
    """Orthanc has one valid note that names both heat maps and the report; `show` tells it."""
    sent = daemon.sql(f"SELECT sop_instance_uid FROM deliveries WHERE study_instance_uid = '{abnormal}'")
    done = daemon.run("withdraw", abnormal, "--reason", "wrong patient", "--reject")
    assert (done.returncode, done.stdout.splitlines()) == (
        0, [f"{abnormal} is withdrawn", "pacs gets a rejection note of what it has"],
    )  # fmt: skip
    sql = "SELECT * FROM deliveries WHERE object = 'rejection'"
    [row] = wait_for(lambda: [row for row in daemon.sql(sql) if row["status"] == "delivered"], 30, "the note")
    [note] = there(orthanc, "KO").values()
    assert note.SOPInstanceUID == row["sop_instance_uid"]
    assert {each.sop_instance_uid for each in Instance.from_dataset(note).rejects} == {
        each["sop_instance_uid"] for each in sent
    }
    assert len(sent) == 3
    files = []
    for number, each in enumerate([*orthanc.instances("KO"), *orthanc.instances("OT"), *orthanc.instances("SR")]):
        files.append(tmp_path / f"{number}.dcm")
        files[-1].write_bytes(orthanc.file(each))
    for tool, some in (("dciodvfy", files[:1]), ("dcentvfy", files)):
        said = subprocess.run([dcmtk(tool), *map(str, some)], capture_output=True, text=True, check=False)
        assert "Error" not in said.stdout + said.stderr, said
    [story] = json.loads(daemon.run("show", abnormal, "--json").stdout)
    assert [each["status"] for each in story["results"]] == ["withdrawn"]
    assert {"rejection", "sr", "capture"} == {each["object"] for each in story["deliveries"]}
    events = [each["event"] for each in story["history"]]
    assert events[-4:] == ["withdrawn", "rejection note wanted", "rejection note made", "delivered"]
    assert daemon.run("status").returncode == 0


def test_note_that_the_pacs_sends_back(daemon: DaemonProcess, orthanc: Orthanc, abnormal: str) -> None:
    """Orthanc forwards the note and the report to us: both are `ignored`, nothing is rejected here."""
    before = daemon.sql("SELECT * FROM results")
    forwarded = [*orthanc.instances("KO"), *orthanc.instances("SR")]
    orthanc.send("POST", "/modalities/agent/store", forwarded)
    sql = f"SELECT status FROM image_results WHERE study_instance_uid = '{abnormal}'"
    wait_for(lambda: len(daemon.sql(sql)) == 2 + len(forwarded), 30, "what was forwarded")
    assert sorted(row["status"] for row in daemon.sql(sql)) == ["analysed", "analysed", "ignored", "ignored"]
    assert daemon.sql("SELECT * FROM results") == before


def test_reanalysed_after_the_note(daemon: DaemonProcess, orthanc: Orthanc, abnormal: str) -> None:
    """A new revision goes to Orthanc; its report names no predecessor, for the note took that back."""
    assert daemon.run("reanalyse", abnormal).returncode == 0
    row = delivered(daemon, abnormal, 2)
    [report] = [ds for ds in there(orthanc, "SR").values() if ds.SOPInstanceUID == row["report_sop_instance_uid"]]
    assert "PredecessorDocumentsSequence" not in report
    assert len(there(orthanc, "KO")) == 1


def test_reanalysed_by_another_bundle(
    daemon: DaemonProcess, orthanc: Orthanc, abnormal: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Started again with another bundle: the report names its predecessor, `analyses` keeps both models' words."""
    before = delivered(daemon, abnormal, 2)
    folder = tmp_path_factory.mktemp("bundle") / "other"
    shutil.copytree(SHIPPED / "demonstration", folder)
    weights = load_file(folder / "weights.safetensors")
    name = next(each for each in sorted(weights) if each.endswith("num_batches_tracked"))  # other bytes, no other net
    save_file(weights | {name: np.asarray(weights[name] + 1)}, folder / "weights.safetensors")
    digest = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    manifest = json.loads((folder / "model.json").read_text())
    manifest |= {"name": "other", "version": "2", "weights_sha256": digest}
    (folder / "model.json").write_text(json.dumps(manifest))
    assert daemon.stop() == 0
    daemon.config.write_text(daemon.config.read_text() + f'[model]\nbundle = "{folder}"\n')
    daemon.start()
    assert daemon.run("reanalyse", abnormal).returncode == 0
    row = delivered(daemon, abnormal, 3)
    assert (row["model_name"], row["model_version"], row["bundle_hash"]) == ("other", "2", digest)
    said = daemon.sql(
        f"SELECT revision, model_name, model_version, bundle_hash FROM analyses WHERE study_instance_uid = '{abnormal}'"
    )
    assert {each["revision"]: tuple(each.values())[1:] for each in said} == {
        **dict.fromkeys((1, 2), (before["model_name"], before["model_version"], before["bundle_hash"])),
        3: ("other", "2", digest),
    }
    assert before["bundle_hash"] != digest
    assert [each["revision"] for each in daemon.sql("SELECT revision FROM results")] == [3]
    [report] = [ds for ds in there(orthanc, "SR").values() if ds.SOPInstanceUID == row["report_sop_instance_uid"]]
    [series] = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence
    assert [each.ReferencedSOPInstanceUID for each in series.ReferencedSOPSequence] == [
        before["report_sop_instance_uid"]
    ]


def test_withdrawn_while_the_daemon_is_down(daemon: DaemonProcess, orthanc: Orthanc, abnormal: str) -> None:
    """Killed, and started again after the command: one note more, which names every revision's objects."""
    before = set(there(orthanc, "KO"))
    daemon.kill_all()
    assert daemon.run("withdraw", abnormal, "--reason", "wrong side", "--reject").returncode == 0
    daemon.start()
    sql = "SELECT * FROM deliveries WHERE object = 'rejection' AND status = 'delivered'"
    wait_for(lambda: len(daemon.sql(sql)) == 2, 30, "the second note")
    [note] = [ds for each, ds in there(orthanc, "KO").items() if each not in before]
    sent = daemon.sql("SELECT sop_instance_uid AS uid FROM deliveries WHERE object <> 'rejection'")
    assert {each.sop_instance_uid for each in Instance.from_dataset(note).rejects} == {row["uid"] for row in sent}
    assert len(sent) == 9
