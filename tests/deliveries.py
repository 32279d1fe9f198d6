"""A PACS of any temper, and a sender to it with a clock that the test moves."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from threading import Event
from typing import Any

from peers import free_port
from pydicom.dataset import Dataset
from pydicom.uid import ComputedRadiographyImageStorage
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification
from radiographs import cr

from pacs_agent.deliver.folder import FolderSender
from pacs_agent.deliver.outbox import Outbox
from pacs_agent.deliver.sender import Sender
from pacs_agent.record import analysing, claiming, delivering, receiving
from pacs_agent.record.analysing import FindingRow, ReportRow
from pacs_agent.record.reading import query
from pacs_agent.record.store import Store
from pacs_agent.settings import Destination
from pacs_agent.study.eligibility import Eligibility
from pacs_agent.study.instance import Instance

CR = ComputedRadiographyImageStorage  # any class will do: the sender sends what the outbox holds


class Pacs:
    """An SCP that answers what the test wants."""

    def __init__(self) -> None:
        self.answer: Callable[[evt.Event], int | Dataset] = lambda _event: 0
        self.answer_action: Callable[[evt.Event], int] = lambda _event: 0
        self.received: list[str] = []
        self.port = free_port()
        self._server: Any = None

    def start(self, *classes: str) -> None:
        """Open the port."""
        ae = AE(ae_title="PACS")
        for uid in (Verification, *classes):
            ae.add_supported_context(uid)
        handlers = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_N_ACTION, lambda event: (self.answer_action(event), None)),
        ]
        self._server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)

    def hang_up(self) -> None:
        """Abort every association."""
        for assoc in self._server.active_associations:
            assoc.abort()

    def stop(self) -> None:
        """Close it."""
        if self._server:
            self._server.shutdown()
            self._server = None

    def _store(self, event: evt.Event) -> int | Dataset:
        self.received.append(str(event.request.AffectedSOPInstanceUID))
        return self.answer(event)


class Delivery:
    """A sender to that PACS, a clock that the test moves, and the rows."""

    def __init__(self, store: Store, data_dir: Path, port: int, **settings: Any) -> None:
        self.moment = datetime(2026, 1, 5, 10, 0, tzinfo=UTC)
        store.clock = lambda: self.moment
        self.store = store
        self.data_dir = data_dir
        self.destinations: tuple[Destination, ...] = ()
        self._seed = 0
        self.sender = self.add("pacs", port, **settings)
        [self.destination] = self.destinations

    def add(self, name: str, port: int, **settings: Any) -> Sender:
        """One destination more; its sender."""
        values: dict[str, Any] = {"timeout_seconds": 5, **settings}
        if not values.keys() & {"folder", "to_sender"}:
            values = {"ae_title": "PACS", "host": "127.0.0.1", "port": port, **values}
        self.destinations += (Destination(name=name, **values),)
        names = [part.name for each in self.destinations for part in each.apart()]
        delivering.destinations_since(self.store, names)
        self.outbox = Outbox(self.data_dir, self.store, self.destinations)
        return self.senders(self.destinations[-1])[0]

    def senders(self, destination: Destination) -> list[Sender]:
        """New senders of a destination, as a start of the daemon makes them."""
        kind = FolderSender if destination.folder else Sender
        return [
            kind(part, ae_title="PACS_AGENT", store=self.store, data_dir=self.data_dir, random=Random(7))
            for part in destination.apart()
        ]

    def put(self, number: int, sop_class_uid: str = CR, **about: Any) -> str:
        """An object of a study of its own waits; its UID."""
        [uid] = self.put_study(number, {"sr": sop_class_uid}, **about)
        return uid

    def put_study(
        self, number: int, objects: dict[str, str], *, finding: str = "normal", part: str = "hand", caller: str = "XR1"
    ) -> list[str]:
        """The objects of a study, kind to SOP class, wait; their UIDs. The same number again: a later revision."""
        self._seed += 1
        facts = Instance(f"1.2.{number}", CR, "1.3", f"1.4.{number}")
        content = f"{number}/{self._seed}"
        receipt = receiving.Receipt(facts, Eligibility("received"), "x", content, 1, caller, self.store.now())
        receiving.Reception(self.store).accept(receipt)
        [waiting] = claiming.receiving_studies(self.store)
        claiming.queue_study(self.store, waiting, "quiet")
        [claim] = claiming.claim_studies(self.store, 1, 60)
        addresses = self.outbox.addresses(
            study_instance_uid=claim.study_instance_uid, calling_ae_title=claim.calling_ae_title,
            findings=[(part, finding)],
            offered=analysing.offered_destinations(self.store, claim.study_id),
        )  # fmt: skip
        reports = []
        for position, (kind, sop_class_uid) in enumerate(objects.items()):
            ds = cr(
                seed=100 * self._seed + position, SOPClassUID=sop_class_uid, StudyInstanceUID=facts.study_instance_uid
            )  # fmt: skip
            path = self.data_dir / "object"
            ds.save_as(path, enforce_file_format=True)
            uid = str(ds.SOPInstanceUID)
            kept = self.outbox.keep(uid, path.read_bytes())
            sr_class = "comprehensive3d" if kind == "sr" else None
            reports.append(
                ReportRow(
                    kind, sop_class_uid, uid, "9.1", kept, addresses.deliveries(kind, sr_class),
                    addresses.not_wanted(kind, sr_class),
                )
            )  # fmt: skip
        analysing.record_analysis(
            self.store, claim, model=None, images=[],
            findings=[FindingRow(part, None, "analysed", finding, 0.1, 0.5, 1, 1, None)], reports=reports,
        )  # fmt: skip
        return [row.sop_instance_uid for row in reports]

    def send(self) -> int:
        """One association with what is due."""
        return self.sender.deliver_once(Event())

    def rows(self) -> list[dict[str, Any]]:
        """The `deliveries` view, oldest object first."""
        return query(self.store.path, "SELECT * FROM deliveries ORDER BY study_instance_uid").records()

    def tick(self, seconds: float) -> None:
        """Let time pass."""
        self.moment += timedelta(seconds=seconds)

    def events(self) -> list[tuple[str, str]]:
        """What happened to deliveries, with the objects."""
        names = (
            "('delivered', 'cancelled too late', 'parked', 'refused after it was cancelled', 'cancelled', 'committed', "
            "'commitment failed')"
        )
        found = query(self.store.path, f"SELECT event, sop_instance_uid FROM events WHERE event IN {names}")
        return [(row[0], row[1]) for row in found.rows]

    def pause_s(self, row: dict[str, Any]) -> float:
        """Seconds from now until a row's next try."""
        return (datetime.fromisoformat(row["next_attempt_at"]) - self.moment).total_seconds()
