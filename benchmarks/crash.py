"""Kills the daemon again and again while a modality sends, then holds it to its promises by the modality's own log.

The daemon, the sender's associations and the PACS (Orthanc, with storage commitment) are real. Kills are SIGKILL: of
the whole daemon at every point of `pacs_agent/faults.py` and at random moments, its start among them, and of the
analysis process alone. Then it is started once more, left in peace, and judged: every instance that was answered 0000
is there byte for byte, every study is delivered, the PACS has one report of each revision and no other. Exit 1 where it
is not so.
"""

import argparse
import io
import os
import random
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.dsutils import encode
from sqlalchemy.exc import DBAPIError

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from peers import DaemonProcess, Orthanc, free_port, running_orthanc, wait_for, write_config

from pacs_agent.errors import PacsAgentError
from pacs_agent.faults import POINTS, VARIABLE
from pacs_agent.phantom.dataset import study
from pacs_agent.presence import running_state
from pacs_agent.receive.part10 import read_part10

AHEAD = 4  # studies that the modality is ahead of the daemon
PARTS = ("hand", "wrist", "finger")
POINT_S, END_S = 60.0, 120.0  # bounds: until a point is reached, until all is delivered
OWN_PROCESS = "images answered"  # the point in the analysis process, which the daemon survives


class Modality(threading.Thread):
    """Sends one study after the other, each instance until it is answered 0000.

    Args:
        daemon: whom to.
        seed: of the studies.
    """

    def __init__(self, daemon: DaemonProcess, seed: int) -> None:
        super().__init__(name="modality", daemon=True)
        self.acknowledged: dict[str, bytes] = {}  # SOP Instance UID to the data set as it was sent
        self.studies: dict[str, int] = {}  # Study Instance UID to the number of its instances
        self.attempts = 0
        self._daemon = daemon
        self._seed = seed
        self._stop_sending = threading.Event()

    def run(self) -> None:
        """Send until told to stop; a study that was begun is finished."""
        while not self._stop_sending.is_set():
            if len(self.studies) - self._finished() >= AHEAD:
                self._stop_sending.wait(0.2)
                continue
            number = len(self.studies)
            instances = study(
                PARTS[number % len(PARTS)],
                seed=self._seed * 100_000 + number,
                abnormal=True,
                views=1 + number % 4,
                transfer_syntax_uid=ExplicitVRLittleEndian,
                longest_side=256,
            )
            self.studies[str(instances[0].StudyInstanceUID)] = len(instances)
            while left := [ds for ds in instances if str(ds.SOPInstanceUID) not in self.acknowledged]:
                self._send(left)

    def finish(self) -> None:
        """Let it finish the study in hand."""
        self._stop_sending.set()
        self.join(END_S)

    def _finished(self) -> int:
        with suppress(DBAPIError, PacsAgentError):  # the daemon is being started
            sql = "SELECT COUNT(DISTINCT study_instance_uid) AS n FROM results WHERE status IN ('delivered', 'failed')"
            return int(self._daemon.sql(sql)[0]["n"])
        return 0

    def _send(self, instances: list[FileDataset]) -> None:
        ae = AE(ae_title="XR1")
        for sop_class_uid in {ds.SOPClassUID for ds in instances}:
            ae.add_requested_context(sop_class_uid, ExplicitVRLittleEndian)
        ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = 5
        self.attempts += 1
        assoc = ae.associate("127.0.0.1", self._daemon.port, ae_title="PACS_AGENT")
        if not assoc.is_established:
            self._stop_sending.wait(0.1)
            time.sleep(0.1)
            return
        for ds in instances:
            try:
                answer = assoc.send_c_store(ds)
            except RuntimeError:  # pynetdicom's, for an association that has ended
                return
            if answer.get("Status") != 0:
                break
            content = encode(ds, is_implicit_vr=False, is_little_endian=True)
            self.acknowledged[str(ds.SOPInstanceUID)] = content or b""
        assoc.release()


class Killer:
    """Starts the daemon and ends it, each time in another way.

    Args:
        daemon: what is killed.
        chance: of moments and kinds.
    """

    def __init__(self, daemon: DaemonProcess, chance: random.Random) -> None:
        self.counts: Counter[str] = Counter()
        self.unreached: list[str] = []
        self._daemon = daemon
        self._chance = chance

    def plan(self, count: int) -> Iterator[tuple[str, Callable[[], None]]]:
        """Each point once, then by chance."""
        points = list(POINTS)
        self._chance.shuffle(points)
        for number in range(count):
            if number < len(points):
                yield points[number], lambda point=points[number]: self.at(point, 1)  # type: ignore[misc]
                continue
            kind = self._chance.choice(("point", "daemon", "daemon", "analysis process"))
            if kind == "point":
                point = self._chance.choice(points)
                yield point, lambda point=point: self.at(point, self._chance.randint(1, 3))  # type: ignore[misc]
            else:
                yield kind, self.whole if kind == "daemon" else self.analysis_process

    def at(self, point: str, times: int) -> None:
        """Let the daemon kill itself when it reaches a point for the so-manieth time."""
        deaths = self._deaths()
        self._daemon.launch(**{VARIABLE: f"{point}:{times}"})
        is_reached = self._wait(lambda: not self._runs() or (point == OWN_PROCESS and self._deaths() > deaths), POINT_S)
        self._kill()
        if is_reached:
            self.counts[point] += 1
        else:
            self.unreached.append(f"{point}:{times}")

    def whole(self) -> None:
        """Kill every process of the daemon at some moment, its start among them."""
        self._daemon.launch()
        self._wait(lambda: not self._runs(), self._chance.uniform(0.0, 8.0))
        self._kill()
        self.counts["daemon, at random"] += 1

    def analysis_process(self) -> None:
        """Kill the analysis process at some moment; then stop the daemon as a service manager does."""
        self._daemon.start()
        self._wait(lambda: not self._runs(), self._chance.uniform(0.0, 3.0))
        state = running_state(self._data_dir)
        if state and isinstance(state["worker_pid"], int):
            with suppress(ProcessLookupError):
                os.kill(state["worker_pid"], signal.SIGKILL)
            self.counts["analysis process, at random"] += 1
        self._wait(lambda: not self._runs(), self._chance.uniform(0.0, 4.0))
        self._daemon.stop()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):  # every process of it has ended already
            self._daemon.kill_all()

    @property
    def _data_dir(self) -> Path:
        return self._daemon.config.parent / "data"

    def _runs(self) -> bool:
        return self._daemon.process is not None and self._daemon.process.poll() is None

    def _deaths(self) -> int:
        with suppress(DBAPIError, PacsAgentError):
            return int(
                self._daemon.sql("SELECT COUNT(*) AS n FROM events WHERE event = 'analysis process died'")[0]["n"]
            )
        return 0

    @staticmethod
    def _wait(condition: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if condition():
                return True
            time.sleep(0.02)
        return condition()


def settle(daemon: DaemonProcess) -> int:
    """In peace, until nothing is left to do; how many studies a person had to `retry`."""
    daemon.start()
    # A study during which its process was killed twice, while it was alone in hand, waits for a person by design.
    failed = int(daemon.sql("SELECT COUNT(*) AS n FROM results WHERE status = 'failed'")[0]["n"])
    if failed:
        daemon.run("retry")
    sql = (
        "SELECT (SELECT COUNT(*) FROM results WHERE status <> 'delivered')"
        " + (SELECT COUNT(*) FROM deliveries WHERE status NOT IN ('committed', 'cancelled')) AS n"
    )
    with suppress(BaseException):  # what is left is told by `broken_promises`
        wait_for(lambda: not daemon.sql(sql)[0]["n"], END_S)
    return failed


def broken_promises(daemon: DaemonProcess, orthanc: Orthanc, modality: Modality) -> list[str]:
    """What does not hold, in words; the daemon has stopped."""
    data = daemon.config.parent / "data"
    results = {row["study_instance_uid"]: row for row in daemon.sql("SELECT * FROM results")}
    return [
        *_instances(daemon, data, modality),
        *_studies(results, modality),
        *_objects(daemon, orthanc, results),
        *_record(daemon, data),
    ]


def _instances(daemon: DaemonProcess, data: Path, modality: Modality) -> Iterator[str]:
    """Every acknowledged instance is there, byte for byte."""
    known = {row["sop_instance_uid"] for row in daemon.sql("SELECT sop_instance_uid FROM image_results")}
    paths = {row["sop_instance_uid"]: row["path"] for row in daemon.sql("SELECT sop_instance_uid, path FROM instance")}
    for uid, content in modality.acknowledged.items():
        if uid not in known:
            yield f"instance {uid} was acknowledged and is not known"
        elif bytes(read_part10(data / paths[uid]).encoded) != content:
            yield f"instance {uid} is not what was sent"


def _studies(results: Mapping[str, Mapping[str, Any]], modality: Modality) -> Iterator[str]:
    """Every study is through, with all its images."""
    for uid, count in modality.studies.items():
        result = results.get(uid)
        if result is None or (result["status"], result["image_count"]) != ("delivered", count):
            yield f"study {uid} is not delivered: {dict(result) if result else 'not there'}"


def _objects(daemon: DaemonProcess, orthanc: Orthanc, results: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """At the PACS is what the record says, and of each study one report that no other replaces."""
    for kind, code in (("sr", "SR"), ("capture", "OT")):
        there = [dcmread(io.BytesIO(orthanc.file(each)), stop_before_pixels=True) for each in orthanc.instances(code)]
        uids = {str(ds.SOPInstanceUID) for ds in there}
        told = {
            row["sop_instance_uid"]: row["status"]
            for row in daemon.sql(f"SELECT sop_instance_uid, status FROM deliveries WHERE object = '{kind}'")
        }
        if unknown := uids - told.keys():
            yield f"{len(unknown)} of {len(uids)} objects ({kind}) at the PACS are not on the record"
        if missing := {uid for uid, status in told.items() if status == "committed"} - uids:
            yield f"{len(missing)} objects ({kind}) are committed and not at the PACS"
        if kind == "capture":
            continue
        replaced = {uid for ds in there for uid in _predecessors(ds)}
        current = Counter(str(ds.StudyInstanceUID) for ds in there if str(ds.SOPInstanceUID) not in replaced)
        for uid, result in results.items():
            if current[uid] != 1 or result["report_sop_instance_uid"] not in uids - replaced:
                yield f"study {uid} has {current[uid]} current reports at the PACS"


def _predecessors(ds: FileDataset) -> Iterator[str]:
    for document in ds.get("PredecessorDocumentsSequence", ()):
        for series in document.ReferencedSeriesSequence:
            yield from (str(item.ReferencedSOPInstanceUID) for item in series.ReferencedSOPSequence)


def _record(daemon: DaemonProcess, data: Path) -> Iterator[str]:
    """One analysis a revision, one report an analysis, nothing left lying about, the database whole."""
    for sql, what in (
        ("SELECT study_id, revision FROM analysis GROUP BY 1, 2 HAVING COUNT(*) > 1", "analyses of one revision"),
        ("SELECT analysis_id FROM report WHERE object = 'sr' GROUP BY 1 HAVING COUNT(*) > 1", "reports of an analysis"),
    ):
        if rows := daemon.sql(sql):
            yield f"{len(rows)} times several {what}"
    named = {row["path"] for row in daemon.sql("SELECT path FROM instance UNION SELECT path FROM report")}
    for folder in ("inbox", "outbox"):
        for path in (data / folder).rglob("*"):
            if path.is_file() and str(path.relative_to(data)) not in named:
                yield f"{path.relative_to(data)} belongs to nothing"
    with closing(sqlite3.connect(data / "pacs-agent.db")) as connection:
        found = [row[0] for row in connection.execute("PRAGMA integrity_check")]
    if found != ["ok"]:
        yield f"the database: {found[0]}"


@contextmanager
def work_folder(keep: Path | None) -> Iterator[Path]:
    """A folder to work in, which stays where one was named."""
    if keep:
        keep.mkdir(parents=True, exist_ok=False)
        yield keep
    else:
        with tempfile.TemporaryDirectory() as name:
            yield Path(name)


def main() -> int:
    """Print what was done and what does not hold; 1 where anything does not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="a folder that is made and left there")
    arguments = parser.parse_args()
    with work_folder(arguments.keep) as folder, running_orthanc(folder) as orthanc:
        port = free_port()
        orthanc.send("PUT", "/modalities/agent", {"AET": "PACS_AGENT", "Host": "127.0.0.1", "Port": port})
        config = write_config(folder, port, orthanc)
        config.write_text(
            config.read_text() + "storage_commitment = true\ncommitment_timeout_seconds = 60\nmax_retry_seconds = 2\n"
        )
        daemon = DaemonProcess(config, port)
        modality = Modality(daemon, arguments.seed)
        killer = Killer(daemon, random.Random(arguments.seed))
        modality.start()
        try:
            for number, (what, kill) in enumerate(killer.plan(arguments.kills), 1):
                kill()
                print(f"{number:4}  {what}", file=sys.stderr)
            daemon.start()
            modality.finish()
            daemon.stop()
            retried = settle(daemon)
        finally:
            daemon.stop()
        broken = broken_promises(daemon, orthanc, modality)
        broken += [f"point {point} was not reached within {POINT_S:g} s" for point in killer.unreached]
        reports, captures = len(orthanc.instances("SR")), len(orthanc.instances("OT"))
        revisions = daemon.sql("SELECT COUNT(*) AS n FROM analysis")[0]["n"]
    for what, count in sorted(killer.counts.items()):
        print(f"{what:32} {count:4}")
    print(
        f"{killer.counts.total()} kills; {len(modality.studies)} studies, {len(modality.acknowledged)} instances in"
        f" {modality.attempts} associations; {revisions} revisions; at the PACS {reports} reports and {captures} heat"
        f" maps; {retried} studies were retried by hand"
    )
    for line in broken:
        print(line)
    print(f"{len(broken)} promises broken")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
