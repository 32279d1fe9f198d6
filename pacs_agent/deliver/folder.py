"""A folder as a destination: each object becomes a Part 10 file there, whole or not at all.

A file has the name of its SOP Instance UID, so that what is written again replaces itself. Whatever the file system
refuses (full, read-only, not mounted, no right) may pass: then nothing is parked, and the folder itself is never made,
which could hide a mount that is missing.
"""

import contextlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from pydicom.uid import UID

from pacs_agent.deliver.sender import Sender, SendOutcome, unfit
from pacs_agent.durable import write_durably
from pacs_agent.errors import DeliveryError
from pacs_agent.record import delivering
from pacs_agent.record.delivering import Due

MODE = 0o640  # whoever reads the folder is of its group


class FolderSender(Sender):
    """Writes the objects of one destination into its folder; made and run as any other sender."""

    def run(self, stop: threading.Event, idle_s: float = 0.5) -> None:
        """As any sender; before that what a kill left half written goes, for its object may be withdrawn by now."""
        with contextlib.suppress(OSError):  # not mounted, say: delivery says so
            for path in (self._destination.folder or Path()).glob(".2.25.*.tmp"):
                path.unlink(missing_ok=True)
        super().run(stop, idle_s)

    def _deliver(self, dues: Sequence[Due], stop: threading.Event) -> None:
        folder = self._destination.folder or Path()
        left = list(dues)
        while left and not (stop.is_set() or self._aborted):
            if not delivering.is_waiting(self._store, left[0]):  # withdrawn or held since it was claimed
                delivering.give_back(self._store, [left.pop(0)])
                continue
            uid = left[0].sop_instance_uid
            if not UID(uid).is_valid:  # it names the file
                self._settle(left.pop(0), SendOutcome("refused", error="its SOP Instance UID is none"))
                continue
            try:
                encoded = (self._data_dir / left[0].path).read_bytes()
            except OSError as error:
                self._settle(left.pop(0), unfit(error))
                continue
            try:
                write_durably(folder / f"{uid}.dcm", (encoded,), folder / f".{uid}.tmp", mode=MODE)
            except OSError as error:
                self._out_of_reach(left, f"cannot be written: {error.strerror or error}")
                return
            self._reached()
            self._settle(left.pop(0), SendOutcome("stored"))
        if left:
            delivering.give_back(self._store, left)


def look(folder: Path) -> str:
    """What is to be said of a folder that can be written to.

    Raises:
        DeliveryError: it is not there, or cannot be written to.
    """
    if not folder.is_dir():
        raise DeliveryError(f"{folder}: there is no such folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DeliveryError(f"{folder}: no right to write there")
    return f"{folder} can be written to"
