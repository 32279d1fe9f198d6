"""Every object of every kind at real peers: Orthanc and DCMTK's storescp take it and keep it as it is."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from objects import CASES, made_of
from peers import Orthanc, answers_echo, data_set, dcmtk, free_port, wait_for
from pydicom import dcmread

from pacs_agent.report.signature import encode_part10
from pacs_agent.report.sr import SR_CLASSES

QUICK = {**os.environ, "TCP_NODELAY": "1"}  # DCMTK's tools otherwise wait 40 ms with each small object


@dataclass(frozen=True)
class Storescp:
    """DCMTK's, with default settings."""

    port: int
    folder: Path


@pytest.fixture(scope="module")
def storescp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storescp]:
    """A running one."""
    made = Storescp(free_port(), tmp_path_factory.mktemp("storescp"))
    process = subprocess.Popen(
        [dcmtk("storescp"), "-aet", "PACS", "--output-directory", made.folder, str(made.port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=QUICK,
    )  # fmt: skip
    try:
        wait_for(lambda: answers_echo(made.port, "PACS"), 20, "storescp's C-ECHO")
        yield made
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def outbox(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """A folder with every object of every case and class, and their encoded data sets by SOP Instance UID."""
    folder, objects = tmp_path_factory.mktemp("outbox"), {}
    for case in CASES.values():
        for sr_class in SR_CLASSES:
            for ds in made_of(case(), sr_class):
                # The cases are all of one study and share their UIDs: each object gets its own.
                uid = f"2.25.5{len(objects):06}"
                ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid
                encoded = encode_part10(ds)
                (folder / f"{uid}.dcm").write_bytes(encoded)
                objects[uid] = data_set(encoded)
    return folder, objects


def send(folder: Path, port: int, called: str) -> None:
    """C-STORE of every file, each answered with success: dcmsend's exit status says so."""
    command = [dcmtk("dcmsend"), "127.0.0.1", str(port), "-aec", called, "--scan-directories", str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=120, env=QUICK)


@pytest.mark.orthanc
@pytest.mark.dcmtk
def test_orthanc_takes_every_object(orthanc: Orthanc, outbox: tuple[Path, dict[str, bytes]]) -> None:
    """Each is stored, once, and comes back byte for byte."""
    folder, objects = outbox
    send(folder, orthanc.dicom_port, orthanc.ae_title)
    found = [(each["MainDicomTags"]["SOPInstanceUID"], each["ID"]) for each in orthanc.get("/instances?expand")]
    assert len(found) == len(objects)
    for uid, identifier in found:
        assert data_set(orthanc.file(identifier)) == objects[uid]


@pytest.mark.dcmtk
def test_storescp_takes_every_object(storescp: Storescp, outbox: tuple[Path, dict[str, bytes]]) -> None:
    """Each is stored, and its file holds the bytes that it went with."""
    folder, objects = outbox
    send(folder, storescp.port, "PACS")
    found = list(storescp.folder.iterdir())
    assert len(found) == len(objects)
    for file in found:
        uid = dcmread(file, specific_tags=["SOPInstanceUID"]).SOPInstanceUID
        assert data_set(file.read_bytes()) == objects[uid]
