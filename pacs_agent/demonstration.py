"""The demo: modality, agent and PACS on this machine, over real associations, with phantom studies of all seven parts.

Leaves: the `results` rows and one report as the PACS received it. Needs no settings and no network beyond loopback.
"""

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pynetdicom import AE, evt

from pacs_agent.daemon import Daemon
from pacs_agent.deliver.files import Peer, send_files
from pacs_agent.phantom.dataset import study, write_study
from pacs_agent.phantom.lesion import Lesion
from pacs_agent.record import reading
from pacs_agent.record.reading import QueryResult
from pacs_agent.report.capture import CAPTURE_CLASS
from pacs_agent.report.sr import SR_CLASSES
from pacs_agent.report.text import report_text
from pacs_agent.settings import Agent, Destination, Listener, Log, Settings, Study
from pacs_agent.study.bodypart import BODY_PARTS

WAIT_S = 75.0
PACS = "DEMO_PACS"
MODALITY = "DEMO_XR"
# Plain ones: how often the model errs on all kinds and degrees, its evaluation tells.
LESIONS = {
    "elbow": Lesion("wire", 0.8),
    "forearm": Lesion("displaced fracture", 0.8),
    "humerus": Lesion("plate", 0.8),
    "wrist": Lesion("sclerotic lesion", 0.8),
}


@dataclass(frozen=True, slots=True)
class DemoOutcome:
    """What there is to print; `is_complete` when every study's report reached the PACS."""

    results: QueryResult
    report_text: str
    is_complete: bool


def run_demo(keep: Path | None, say: Callable[[str], None]) -> DemoOutcome:
    """Run it.

    Args:
        keep: a folder to leave everything in; None: a temporary one.
        say: takes a line of progress.
    """
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        return _run(keep, say)
    with tempfile.TemporaryDirectory(prefix="pacs-agent-demo-") as folder:
        return _run(Path(folder), say)


def _run(folder: Path, say: Callable[[str], None]) -> DemoOutcome:
    say("making phantom studies of seven body parts: " + ", ".join(_shown(part) for part in BODY_PARTS))
    studies = [
        write_study(
            study(part, seed=number, abnormal=part in LESIONS, views=2, lesion=LESIONS.get(part)),
            folder / "modality" / part,
        )
        for number, part in enumerate(BODY_PARTS)
    ]
    received = folder / "pacs"
    received.mkdir(exist_ok=True)
    with _pacs(received) as pacs_port:
        settings = Settings(
            agent=Agent(data_dir=folder / "agent", min_free_mb=0),
            listener=Listener(port=0),
            study=Study(quiet_seconds=1),
            destination=(Destination(name="pacs", ae_title=PACS, host="127.0.0.1", port=pacs_port),),
            log=Log(level="warning"),
        )
        daemon = Daemon(settings)
        say("starting the daemon")
        daemon.start()
        try:
            say(f"sending {sum(len(files) for files in studies)} instances to it on port {daemon.port}")
            peer = Peer(settings.listener.ae_title, settings.listener.host, daemon.port)
            for path, _, problem in send_files([folder / "modality"], peer, MODALITY):
                if problem:
                    say(f"{path.name}: {problem}")
            say("waiting until every report has reached the PACS")
            is_complete = _wait(settings.database_path, len(studies))
        finally:
            daemon.stop()
        found = reading.results(settings.database_path)
        objects = map(dcmread, sorted(received.glob("*.dcm")))
        report = next((ds for ds in objects if ds.SOPClassUID != CAPTURE_CLASS), None)
        text = report_text(report) if report else "no report was received"
    return DemoOutcome(found, text, is_complete)


def _shown(body_part: str) -> str:
    lesion = LESIONS.get(body_part)
    return f"{body_part} with {lesion.kind}" if lesion else f"normal {body_part}"


def _wait(database: Path, count: int) -> bool:
    """Wait, with a bound, until *count* studies are delivered."""
    deadline = time.monotonic() + WAIT_S
    tick = threading.Event()
    sql = "SELECT COUNT(DISTINCT study_instance_uid) FROM results WHERE status = 'delivered'"
    while time.monotonic() < deadline:
        if reading.query(database, sql).rows[0][0] >= count:
            return True
        tick.wait(0.2)
    return False


@contextmanager
def _pacs(folder: Path) -> Iterator[int]:
    """A PACS that keeps reports and captures; gives its port."""

    def on_store(event: evt.Event) -> int:
        ds = event.dataset
        ds.file_meta = event.file_meta
        ds.save_as(folder / f"{len(list(folder.iterdir())):03d}.dcm", enforce_file_format=True)
        return 0x0000

    ae = AE(ae_title=PACS)
    for uid in (*SR_CLASSES.values(), CAPTURE_CLASS):
        ae.add_supported_context(uid)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, on_store)])
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
