"""A whole site for tests of load: the daemon as a process, a PACS that counts, and the modalities' log of what was
acknowledged, by which it is judged."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from callers import Caller, Sent
from deliveries import Pacs
from peers import DaemonProcess, free_port, wait_for, write_config
from pydicom.uid import Comprehensive3DSRStorage, SecondaryCaptureImageStorage
from pynetdicom import evt


class Site:
    """Daemon, PACS and log.

    Args:
        folder: for the daemon.
        listener: lines of [listener].
        more: further sections.
        min_free_mb: the disk floor.

    Attributes:
        acknowledged: what was answered 0000, by SOP Instance UID.
        reports: how often each came to the PACS, by SOP Instance UID.
    """

    def __init__(self, folder: Path, *, listener: str = "", more: str = "", min_free_mb: int = 1) -> None:
        self.acknowledged: dict[str, Sent] = {}
        self.reports: Counter[str] = Counter()
        self._pacs = Pacs()
        self._pacs.answer = self._count
        destination = (
            f'[[destination]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {self._pacs.port}\n'
            "retry_seconds = 1\n"
        )
        port = free_port()
        config = write_config(folder, port, more=more + destination)
        text = config.read_text().replace("[listener]\n", f"[listener]\n{listener}")
        config.write_text(text.replace("min_free_mb = 1\n", f"min_free_mb = {min_free_mb}\n"))
        self.daemon = DaemonProcess(config, port)
        self.data_dir = folder / "data"

    def _count(self, event: evt.Event) -> int:
        if event.request.AffectedSOPClassUID == Comprehensive3DSRStorage:
            self.reports[str(event.request.AffectedSOPInstanceUID)] += 1
        return 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Daemon and PACS, ended after."""
        self._pacs.start(Comprehensive3DSRStorage, SecondaryCaptureImageStorage)
        try:
            self.daemon.start()
            yield
        finally:
            self.daemon.stop()
            self._pacs.stop()

    def send(self, instances: list[Sent]) -> list[int]:
        """One association with them; their statuses."""
        with Caller(self.daemon.port) as caller:
            caller.associate()
            statuses = [self.store(caller, each) for each in instances]
            caller.release()
        return statuses

    def store(self, caller: Caller, sent: Sent) -> int:
        """Send one on an open association and note whether it was acknowledged; its status."""
        status = caller.store(sent)
        if status == 0:
            self.acknowledged[sent.sop_instance_uid] = sent.without_messages()
        return status

    def settle(self, timeout_s: float) -> None:
        """Wait until every study is delivered, but not for ever; what is not, `missing` tells."""
        studies = len({each.study_instance_uid for each in self.acknowledged.values()})
        sql = "SELECT COUNT(*) AS n FROM results WHERE status <> 'delivered'"
        with suppress(pytest.fail.Exception):
            # The PACS' own count is cheap; a later revision is one report more.
            wait_for(lambda: len(self.reports) >= studies, timeout_s, "reports")
            wait_for(lambda: not self.daemon.sql(sql)[0]["n"], timeout_s, "delivery")

    def missing(self) -> list[str]:
        """What was acknowledged and is not there, not delivered, or delivered otherwise than once; in words."""
        rows = {
            row["sop_instance_uid"]: row
            for row in self.daemon.sql("SELECT sop_instance_uid, sha256, path FROM instance")
        }
        broken = []
        for uid, sent in self.acknowledged.items():
            row = rows.get(uid)
            if row is None or row["sha256"] != sent.sha256:
                broken.append(f"instance {uid} was acknowledged and is not known")
            elif (self.data_dir / row["path"]).stat().st_size < sent.size_bytes:
                broken.append(f"instance {uid} is not whole")
        results = {row["study_instance_uid"]: row for row in self.daemon.sql("SELECT * FROM results")}
        for uid, count in Counter(sent.study_instance_uid for sent in self.acknowledged.values()).items():
            row = results.get(uid)
            if row is None or (row["status"], row["image_count"]) != ("delivered", count):
                broken.append(f"study {uid} with {count} images is not delivered: {row}")
            elif self.reports[row["report_sop_instance_uid"]] != 1:
                broken.append(f"study {uid}: its report came {self.reports[row['report_sop_instance_uid']]} times")
        # Of a revision that a late image made obsolete before it went, none is there.
        sql = "SELECT sop_instance_uid FROM deliveries WHERE object = 'sr' AND status IN ('delivered', 'committed')"
        delivered = {row["sop_instance_uid"] for row in self.daemon.sql(sql)}
        if differ := delivered ^ set(self.reports):
            broken.append(f"{len(differ)} reports are at the PACS and not known to be, or known to be and not there")
        return broken
