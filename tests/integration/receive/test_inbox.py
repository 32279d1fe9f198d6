"""The inbox: what was acknowledged survives, files and rows come together again, one daemon a directory."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_file_meta_info
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian
from radiographs import cr

from pacs_agent.errors import DataDirectoryInUseError, NotUnderstoodError
from pacs_agent.receive.dataset import read_received
from pacs_agent.receive.inbox import DataDirectory, Inbox
from pacs_agent.receive.part10 import read_part10
from pacs_agent.record import receiving, retaining
from pacs_agent.record.reading import query
from pacs_agent.record.store import Store


def accept(inbox: Inbox, ds: FileDataset, calling_ae_title: str = "XR1") -> str:
    """As the listener does it."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, ds)
    encoded = memoryview(buffer.getvalue())
    return inbox.accept(encoded, read_received(encoded, ExplicitVRLittleEndian, 1 << 24), calling_ae_title)


def instances(store: Store) -> list[dict[str, Any]]:
    """The rows of the table."""
    return query(store.path, "SELECT * FROM instance ORDER BY id").records()


def only_file(data_dir: Path) -> Path:
    """The one instance on disk."""
    [path] = (data_dir / "inbox").rglob("*.dcm")
    return path


def test_name_is_the_digest_and_nothing_received(inbox: Inbox, store: Store, data_dir: Path) -> None:
    """A file is named by what it holds: no UID, title or other string of the sender is in its path."""
    ds = cr()
    assert accept(inbox, ds, "../../EVIL") == "new"
    path = only_file(data_dir)
    [row] = instances(store)
    assert path.relative_to(data_dir) == Path(f"inbox/{row['sha256'][:2]}/{row['sha256']}.dcm")
    assert row["path"] == str(path.relative_to(data_dir))


def test_file_is_part_10_and_says_who_sent_it(inbox: Inbox, data_dir: Path) -> None:
    """Group 0002 names class, instance, syntax and the sender; the data set is as received. PS3.10 7.1"""
    ds = cr()
    accept(inbox, ds)
    kept = dcmread(only_file(data_dir))
    assert kept.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
    assert kept.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert kept.file_meta.SendingApplicationEntityTitle == "XR1"
    assert kept.PixelData == ds.PixelData


def test_nobody_else_can_read(inbox: Inbox, data_dir: Path) -> None:
    """Folders are 0700 and files 0600, whatever the umask."""
    before = os.umask(0)
    try:
        accept(inbox, cr())
    finally:
        os.umask(before)
    path = only_file(data_dir)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (data_dir / "inbox").iterdir()} == {0o700}
    assert stat.S_IMODE((data_dir / "inbox").stat().st_mode) == 0o700


def test_file_without_row_is_adopted(
    inbox: Inbox, make_inbox: Callable[[], Inbox], store: Store, data_dir: Path
) -> None:
    """A kill between file and row loses nothing: the next start makes the row, with its sender."""
    ds = cr()
    accept(inbox, ds, "XR7")
    with store.write() as connection:
        for table in ("instance", "study"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
    make_inbox().reconcile()
    [row] = instances(store)
    assert (row["sop_instance_uid"], row["calling_ae_title"], row["status"]) == (ds.SOPInstanceUID, "XR7", "received")
    assert (data_dir / row["path"]).exists()
    make_inbox().reconcile()
    assert len(instances(store)) == 1


def test_row_without_file_is_marked_and_healed_by_a_resend(inbox: Inbox, store: Store, data_dir: Path) -> None:
    """A lost file is said in the row and in the history; when the instance comes again it waits for its analysis."""
    ds = cr()
    accept(inbox, ds)
    only_file(data_dir).unlink()
    inbox.reconcile()
    [row] = instances(store)
    assert (row["status"], row["path"], row["reason"]) == ("failed", None, "its file is missing from the inbox")
    assert ("instance file missing",) in query(store.path, "SELECT event FROM events").rows
    accept(inbox, ds)
    [row] = instances(store)
    assert (row["status"], row["reason"]) == ("received", None)
    assert (data_dir / row["path"]).exists()


def test_leftover_of_a_kill_is_removed(inbox: Inbox, store: Store, data_dir: Path) -> None:
    """A half-written file was never acknowledged and goes at the next start."""
    leftover = data_dir / "inbox" / "tmp" / "123-abc.dcm"
    leftover.write_bytes(b"half")
    inbox.reconcile()
    assert not leftover.exists()
    assert instances(store) == []


@pytest.mark.parametrize("content", [b"", b"not DICOM at all", b"\0" * 128 + b"DICM" + b"\0" * 40])
def test_strange_file_is_left_alone(inbox: Inbox, store: Store, data_dir: Path, content: bytes) -> None:
    """What is not an instance is neither taken in nor removed, and does not stop the start."""
    strange = data_dir / "inbox" / "ab" / "strange.dcm"
    strange.write_bytes(content)
    inbox.reconcile()
    assert instances(store) == []
    assert strange.read_bytes() == content


@pytest.mark.parametrize(
    "spoilt", [(b"\x10\x00UI", b"\x10\x00U4"), (b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.\xe9")]
)
def test_spoilt_transfer_syntax_does_not_stop_the_start(
    inbox: Inbox, store: Store, data_dir: Path, spoilt: tuple[bytes, bytes]
) -> None:
    """A VR that does not exist, a UID that is none: the file is left alone."""
    accept(inbox, cr())
    path = only_file(data_dir)
    path.write_bytes(path.read_bytes().replace(*spoilt))
    with store.write() as connection:
        for table in ("instance", "study"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
    inbox.reconcile()
    assert instances(store) == []
    assert path.exists()


def test_spoilt_file_is_not_adopted(inbox: Inbox, store: Store, data_dir: Path) -> None:
    """A file whose content is not what its name says is not passed off as the instance."""
    accept(inbox, cr())
    path = only_file(data_dir)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with store.write() as connection:
        for table in ("instance", "study"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
    inbox.reconcile()
    assert instances(store) == []


def test_spoilt_file_does_not_refuse_its_sender(inbox: Inbox, store: Store, data_dir: Path) -> None:
    """Our copy can no longer be read: what the sender brings under that UID is kept as a revision, not refused."""
    ds = cr()
    accept(inbox, ds)
    only_file(data_dir).write_bytes(b"spoilt")
    ds.InstanceNumber = 99
    assert accept(inbox, ds) == "revision"
    assert [row["is_current"] for row in instances(store)] == [0, 1]


def test_read_part10_refuses_what_is_none(tmp_path: Path) -> None:
    """One clear error."""
    (tmp_path / "x").write_bytes(b"x" * 300)
    with pytest.raises(NotUnderstoodError, match="Part 10"):
        read_part10(tmp_path / "x")


def test_second_daemon_is_refused(tmp_path: Path) -> None:
    """A data directory has one owner; it can be had again once given back."""
    first = DataDirectory(tmp_path / "data")
    with pytest.raises(DataDirectoryInUseError, match="another daemon works in"):
        DataDirectory(tmp_path / "data")
    first.release()
    DataDirectory(tmp_path / "data").release()


def test_lock_falls_with_its_process_and_is_not_inherited(tmp_path: Path) -> None:
    """A child that outlives the owner does not keep the directory."""
    script = (
        "import pathlib, subprocess, sys; from pacs_agent.receive.inbox import DataDirectory; "
        "held = DataDirectory(pathlib.Path(sys.argv[1])); "
        "child = subprocess.Popen([sys.executable, '-c', 'import sys; sys.stdin.read()'], stdin=subprocess.PIPE,"
        " close_fds=False); print(child.pid, flush=True); sys.stdin.read()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert owner.stdout is not None
    assert owner.stdin is not None
    owner.stdout.readline()
    with pytest.raises(DataDirectoryInUseError):
        DataDirectory(tmp_path)
    owner.kill()
    owner.wait(10)
    DataDirectory(tmp_path).release()
    owner.stdin.close()
    owner.stdout.close()


def test_retention_removes_only_what_no_row_names(inbox: Inbox, store: Store, data_dir: Path) -> None:
    """A file that retention took from its row goes; one that was sent again meanwhile is named again and stays."""
    gone, again = cr(), cr()
    for ds in (gone, again):
        accept(inbox, ds)
    with store.write() as connection:
        connection.exec_driver_sql("UPDATE study SET state = 'analysed'")
    paths = retaining.forget_instances(store, "9999")
    assert len(paths) == 2
    assert {row["path"] for row in instances(store)} == {None}
    assert accept(inbox, again) == "duplicate"
    assert inbox.remove(paths) == 1
    [row] = [each for each in instances(store) if each["path"]]
    assert only_file(data_dir) == data_dir / row["path"]
    assert row["sop_instance_uid"] == again.SOPInstanceUID


def test_retention_spares_a_file_whose_row_is_being_written(
    inbox: Inbox, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the rename and the row nothing names a file; it is spared all the same."""
    removed = []

    accept_row = inbox._reception.accept

    def register(receipt: receiving.Receipt) -> str:
        removed.append(inbox.remove([receipt.path]))
        return accept_row(receipt)

    monkeypatch.setattr(inbox._reception, "accept", register)
    accept(inbox, cr())
    assert removed == [0]
    assert only_file(data_dir).exists()


def test_file_that_goes_while_it_is_compared_does_not_refuse_its_sender(
    inbox: Inbox, store: Store, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retention removes the file between two looks at it: what the sender brings is kept."""
    ds = cr()
    accept(inbox, ds)

    def read_and_remove(path: Path) -> FileMetaDataset:
        meta = read_file_meta_info(path)
        path.unlink()
        return meta

    monkeypatch.setattr("pacs_agent.receive.part10.read_file_meta_info", read_and_remove)
    ds.InstanceNumber = 99
    assert accept(inbox, ds) == "revision"
    assert [row["is_current"] for row in instances(store)] == [0, 1]


def test_file_that_retention_forgot_and_a_kill_left_is_given_back(
    inbox: Inbox, make_inbox: Callable[[], Inbox], store: Store, data_dir: Path
) -> None:
    """The start gives a superseded revision its file again; what counts, and the finished study, stay as they are."""
    first, second = cr(), cr()
    second.SOPInstanceUID, second.StudyInstanceUID = first.SOPInstanceUID, first.StudyInstanceUID
    for ds in (first, second):
        accept(inbox, ds)
    with store.write() as connection:
        connection.exec_driver_sql("UPDATE study SET state = 'analysed'")
    before = instances(store)
    assert [row["is_current"] for row in before] == [0, 1]
    assert len(retaining.forget_instances(store, "9999")) == 2
    make_inbox().reconcile()
    assert instances(store) == before
    assert query(store.path, "SELECT state FROM study").rows == (("analysed",),)
