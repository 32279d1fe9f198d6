"""A whole daemon on a disk of its own that is too small, and one that is read-only: a real file system refuses."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from peers import DaemonProcess, free_port, wait_for, write_config
from pydicom.dataset import FileDataset
from pynetdicom import AE
from radiographs import cr

OUT_OF_RESOURCES = 0xA700
DISK_MB = 16


def _mount(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system, where one may be mounted."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    try:
        made = _mount("-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=0700", "tmpfs", str(folder))
    except OSError as error:
        pytest.skip(f"nothing can be mounted here: {error.strerror}")
    if made.returncode:
        pytest.skip(f"nothing may be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def daemon(disk: Path, tmp_path: Path) -> Iterator[DaemonProcess]:
    """On that disk, without a floor, so that the disk itself refuses; not started."""
    port = free_port()
    config = write_config(tmp_path, port)
    config.write_text(config.read_text().replace("min_free_mb = 1", "min_free_mb = 0"))
    made = DaemonProcess(config, port)
    yield made
    if made.process and made.process.poll() is None:
        made.kill_all()


def store(daemon: DaemonProcess, instances: list[FileDataset]) -> list[int]:
    """C-STORE over one association; the statuses."""
    ae = AE(ae_title="XR1")
    ae.add_requested_context(instances[0].SOPClassUID, instances[0].file_meta.TransferSyntaxUID)
    assoc = ae.associate("127.0.0.1", daemon.port, ae_title="PACS_AGENT")
    assert assoc.is_established
    statuses = [int(assoc.send_c_store(ds).Status) for ds in instances]
    assoc.release()
    return statuses


def test_disk_that_fills_up(disk: Path, daemon: DaemonProcess) -> None:
    """What was answered 0000 is there; the rest got A700, and is taken when there is room.

    Then the disk is mounted read-only: a start says so in one line.
    """
    daemon.start()
    assert daemon.run("pause", "analysis").returncode == 0
    ballast = disk / "ballast"
    ballast.write_bytes(b"\0" * (4 << 20))
    instances = [cr(seed=seed, side=512) for seed in range(40)]  # of half a megabyte
    statuses = store(daemon, instances)
    assert set(statuses) == {0, OUT_OF_RESOURCES}
    kept = {ds.SOPInstanceUID for ds, status in zip(instances, statuses, strict=True) if status == 0}

    def rows() -> set[str]:
        return {row["sop_instance_uid"] for row in daemon.sql("SELECT sop_instance_uid FROM instance")}

    assert rows() == kept
    assert len(list((disk / "inbox").glob("??/*.dcm"))) == len(kept)  # nothing that was refused takes of the room
    ballast.unlink()
    assert store(daemon, [instances[statuses.index(OUT_OF_RESOURCES)]]) == [0]
    daemon.kill_all()
    daemon.start()  # on a disk that is nearly full
    wait_for(lambda: len(rows()) == len(kept) + 1, what="what was acknowledged")
    assert daemon.stop() == 0

    assert _mount("-o", "remount,ro", str(disk)).returncode == 0
    refused = daemon.run("serve")
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1, refused.stderr
    assert "Read-only file system" in refused.stderr
