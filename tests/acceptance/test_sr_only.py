"""A PACS that takes structured reports and no Secondary Captures, and the real daemon."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from deliveries import Pacs
from peers import DaemonProcess, Orthanc, free_port, wait_for, write_config
from pydicom.uid import Comprehensive3DSRStorage

from pacs_agent.deliver.files import Peer, send_files
from pacs_agent.phantom.dataset import study, write_study
from pacs_agent.phantom.lesion import Lesion

REASON = "the destination does not accept this SOP class: Secondary Capture Image Storage"


@pytest.fixture
def pacs() -> Iterator[Pacs]:
    """It accepts Comprehensive 3D SR and C-ECHO."""
    made = Pacs()
    made.start(Comprehensive3DSRStorage)
    yield made
    made.stop()


@pytest.fixture
def daemon(tmp_path: Path, pacs: Pacs) -> Iterator[DaemonProcess]:
    """With that PACS as its destination."""
    port = free_port()
    running = DaemonProcess(write_config(tmp_path, port, Orthanc(pacs.port, 0, "PACS")), port)
    running.start()
    yield running
    assert running.stop() == 0


def test_report_is_delivered_and_heat_maps_are_parked(daemon: DaemonProcess, pacs: Pacs, tmp_path: Path) -> None:
    """The SR is there; each heat map is parked, why says `show` and `status`; `check` names the remedy, which helps."""
    images = study("forearm", seed=7001, abnormal=True, views=2, lesion=Lesion("plate", 0.9), kind="DX")
    write_study(images, tmp_path / "study")
    list(send_files([tmp_path / "study"], Peer("PACS_AGENT", "127.0.0.1", daemon.port), "XR1"))
    sql = "SELECT object, status, sop_instance_uid, last_error FROM deliveries ORDER BY object DESC"
    ended = {"delivered", "parked"}
    rows = wait_for(
        lambda: (found := daemon.sql(sql)) and {row["status"] for row in found} <= ended and found, 90, "the end"
    )
    assert [(row["object"], row["status"], row["last_error"]) for row in rows] == [
        ("sr", "delivered", None), ("capture", "parked", REASON), ("capture", "parked", REASON),
    ]  # fmt: skip
    assert pacs.received == [rows[0]["sop_instance_uid"]]

    status = json.loads(daemon.run("status", "--json").stdout)
    assert status["problems"] == ["2 deliveries parked at pacs"]
    shown = " ".join(daemon.run("show", str(images[0].StudyInstanceUID)).stdout.split())
    assert f"parked at pacs: {REASON}" in shown
    assert daemon.sql("SELECT finding, status, reason FROM results") == [
        {"finding": "abnormal", "status": "analysed", "reason": f"parked at pacs: {REASON}"}
    ]

    checked = daemon.run("check", "--json")
    failed = [line for line in json.loads(checked.stdout) if not line["ok"]]
    assert checked.returncode == 1
    assert [(line["check"], 'objects = ["sr"]' in line["detail"]) for line in failed] == [
        ("destination pacs: capture", True)
    ]
    daemon.config.write_text(daemon.config.read_text() + 'objects = ["sr"]\n')
    assert daemon.run("check").returncode == 0
