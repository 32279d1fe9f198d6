"""A root that cannot be written to is enough: the daemon writes to its data directory, and temporary files."""

import os
from pathlib import Path

import pytest
from peers import DaemonProcess, free_port, wait_for, write_config
from pynetdicom import AE
from radiographs import hand

# Python's own hook, in every process of the daemon: whatever is opened to be written to is noted.
NOTING = """
import os, sys
notes = os.open(os.environ["NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
def note(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        os.write(notes, os.fsencode(arguments[0]) + b"\\n")
    elif event in ("os.mkdir", "os.rename", "os.link", "os.symlink", "os.truncate", "sqlite3.connect"):
        os.write(notes, os.fsencode(arguments[1 if event in ("os.rename", "os.link") else 0]) + b"\\n")
sys.addaudithook(note)
"""


@pytest.mark.timeout(300)
def test_what_is_written_is_data_or_temporary(tmp_path: Path) -> None:
    """From start to stop, through an analysis with its heat maps; a home and a cache directory are not there."""
    notes = tmp_path / "notes"
    (tmp_path / "site").mkdir()
    (tmp_path / "tmp").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(NOTING)
    paths = [str(tmp_path / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        "PYTHONPATH": os.pathsep.join(paths),
        "NOTES": str(notes),
        "TMPDIR": str(tmp_path / "tmp"),
        "HOME": "/nonexistent",
        "PYTHONDONTWRITEBYTECODE": "1",  # compiled when the image is built
    }
    port = free_port()
    daemon = DaemonProcess(write_config(tmp_path, port), port, environment=environment)
    daemon.start()
    ds = hand(seed=1)
    ae = AE(ae_title="XR1")
    ae.add_requested_context(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID)
    assoc = ae.associate("127.0.0.1", port, ae_title="PACS_AGENT")
    assert assoc.send_c_store(ds).Status == 0
    assoc.release()
    wait_for(lambda: daemon.sql("SELECT 1 FROM results WHERE status = 'held'"), 120, "the report")
    assert daemon.stop() == 0
    written = {Path(line) for line in notes.read_text().splitlines()}
    assert any("inbox" in path.parts for path in written)  # it notes
    assert any("outbox" in path.parts for path in written)
    allowed = [tmp_path / "data", tmp_path / "tmp", Path("/dev"), Path("/proc/self")]
    assert [path for path in written if not any(path.is_relative_to(root) for root in allowed)] == []
