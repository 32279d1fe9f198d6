"""The composition root: builds every part, starts, drains, stops. Knows everyone; nobody but cli knows it."""

import contextlib
import ctypes
import gc
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from random import SystemRandom
from types import FrameType

import structlog
from sqlalchemy.exc import DBAPIError, OperationalError

from pacs_agent import __version__, rules
from pacs_agent.analyse.bundle import load_bundle, load_further
from pacs_agent.analyse.further import FurtherStation
from pacs_agent.analyse.station import AnalysisStation
from pacs_agent.analyse.supervisor import AnalysisProcess
from pacs_agent.clock import SteadyClock
from pacs_agent.deliver.folder import FolderSender
from pacs_agent.deliver.outbox import Outbox
from pacs_agent.deliver.sender import Sender
from pacs_agent.errors import PacsAgentError, StationError, WorkerUnavailableError
from pacs_agent.presence import Presence
from pacs_agent.receive.inbox import DataDirectory
from pacs_agent.receive.listener import Listener
from pacs_agent.record import backup, claiming, committing, damage, delivering, restoring, retaining, shifting
from pacs_agent.record.committing import CommitmentResult
from pacs_agent.record.further import forget_further
from pacs_agent.record.store import Store
from pacs_agent.record.times import from_text, to_text
from pacs_agent.recovering import Recovering
from pacs_agent.rejecting import Rejecting
from pacs_agent.reporting import Reporting
from pacs_agent.schedule import Schedule
from pacs_agent.settings import Settings
from pacs_agent.study.completeness import complete_because

log = structlog.get_logger()

DATABASE_PAUSE_S = 10.0
SWITCH_INTERVAL_S = 0.03
TRANSACTIONS_DAYS = 30  # that a late word on storage commitment is understood


class Daemon:
    """One daemon on one data directory.

    Args:
        settings: checked.
        clock: gives the present, and tells when the machine's was set.

    Raises:
        PacsAgentError: the bundle, the data directory or the database cannot be used; nothing was opened then.
    """

    def __init__(self, settings: Settings, clock: SteadyClock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SteadyClock()
        bundle = load_bundle(settings.model.bundle)  # refused before anything is opened
        also = load_further(settings.model.also, bundle)
        self._model = bundle.identity
        self._data_directory = DataDirectory(settings.data_dir)
        data_dir = settings.data_dir
        if aside := backup.finish(settings.database_path):
            log.warning("a restore that was broken off is finished", set_aside=aside.name)
        damage.check_not_lost(settings.database_path, data_dir)
        store = self._store = Store.open(settings.database_path, self._clock)
        shifting.forget_future(store)
        names = [target.name for target in settings.destinations]
        if count := delivering.forget_destinations(store, names):
            log.warning("deliveries to destinations that are no longer configured were cancelled", count=count)
        delivering.destinations_since(store, names)
        delivering.tell_destinations(store, [f"{each.name}: {each.address}" for each in settings.destinations])
        committing.renew_requests(store, [each.name for each in settings.destinations if each.storage_commitment])
        self._outbox = Outbox(data_dir, store, settings.destination)
        map_body_part = rules.mapping(settings)
        self._recovering = Recovering(data_dir, store, self._outbox, settings.destination, map_body_part)
        equipment = rules.equipment(settings, store)
        make_notes = Rejecting(data_dir, store, self._outbox, equipment)
        self._assess = rules.eligibility(settings)
        self._inbox = rules.inbox_of(settings, store, self._assess)
        self._listener = Listener(settings.listener, self._inbox, self._settle, self._on_database_error)
        self._process = AnalysisProcess.of(bundle, settings.model)
        self._further_processes = [AnalysisProcess.of(each, settings.model) for each in also]
        self._further = [
            FurtherStation(store=store, data_dir=data_dir, bundle=each, process=process)
            for each, process in zip(also, self._further_processes, strict=True)
        ]
        further = [station.model for station in self._further]
        if count := forget_further(store, further):
            log.warning("what waited for further bundles that are no longer configured is given up", count=count)
        self._station = AnalysisStation(
            store=store,
            data_dir=data_dir,
            bundle=bundle,
            process=self._process,
            assess=self._assess,
            map_body_part=map_body_part,
            make_reports=Reporting(settings, store, self._outbox, bundle.identity, equipment, self._process.capture),
            discard_unrecorded=self._outbox.reconcile,
            batch_studies=settings.model.batch_studies,
            lease_s=settings.model.timeout_seconds * 2,
            further=further,
        )
        self._senders = [
            (FolderSender if target.folder else Sender)(
                target,
                ae_title=settings.listener.ae_title,
                store=store,
                data_dir=data_dir,
                random=SystemRandom(),
                make_notes=make_notes,
            )
            for target in settings.destinations
        ]
        self._rules = rules.completeness(settings)
        self._stop = threading.Event()
        self._ready_since = store.clock()
        self._failure: Exception | None = None
        self._threads: list[threading.Thread] = []
        self._schedule: Schedule | None = None
        self._presence = Presence(data_dir)
        self.port = 0

    def start(self) -> None:
        """Mend what the last run left, start every part, and open the port last: C-ECHO is answered when all is ready.

        Raises:
            PacsAgentError: the port cannot be opened, or the analysis process cannot start.
        """
        self._reconcile()
        claiming.release_claims(self._store)
        delivering.wake_waiting(self._store)
        try:
            self._start_parts()
        except BaseException:
            self.stop()
            raise
        log.info(
            "ready",
            ae_title=self._settings.listener.ae_title,
            host=self._settings.listener.host,
            port=self.port,
            device=self._process.device,
            version=__version__,
        )

    def _reconcile(self) -> None:
        """Bring files and rows together; after a restore also what was received and made since the backup."""
        if restored_at := backup.restored_at(self._store):
            removed = restoring.forget_removed(self._store, self._settings.data_dir)
            self._inbox.reconcile()
            adopted, aside = self._recovering.adopt_all()
            backup.settle_restored(self._store)
            log.warning(
                "the database is a restored one", restored_at=restored_at, instances_not_there=removed,
                objects_found=adopted, objects_set_aside=aside,
            )  # fmt: skip
        else:
            found = self._recovering.found()
            further = [station.model for station in self._further]
            if finished := self._recovering.finish_claimed(found, self._model.key, further):
                log.info("analyses in hand when the last run ended are recorded from their reports", studies=finished)
            self._inbox.reconcile()
            if adopted := self._recovering.adopt_lost(found):
                log.error("the database has lost its last transactions", objects_found=adopted)
        self._outbox.reconcile()

    def _start_parts(self) -> None:
        started = threading.Event()
        self._threads.append(threading.Thread(target=self._analyse, args=(started,), name="analysis"))
        all_started = [started]
        for station, process in zip(self._further, self._further_processes, strict=True):
            all_started.append(threading.Event())
            arguments = (station, process, all_started[-1])
            self._threads.append(
                threading.Thread(target=self._compare, args=arguments, name=f"further bundle {station.model[0]}")
            )
        for sender in self._senders:
            self._threads.append(threading.Thread(target=self._guarded, args=(sender.run,), name="delivery"))
        for thread in self._threads:
            thread.start()
        for each in all_started:
            each.wait()
        if self._failure:
            raise self._failure
        try:
            self.port = self._listener.start()
        except OSError as error:
            raise PacsAgentError(
                f"cannot listen on {self._settings.listener.host}:{self._settings.listener.port}: {error.strerror}"
            ) from error
        self._ready_since = self._store.clock()
        self._tell()
        self._schedule = Schedule(
            each_second=lambda: self._timely("completeness", self._each_second),
            each_night=lambda: self._timely("retention", self._each_night),
        )

    def serve(self) -> None:
        """Run until SIGTERM, SIGINT or the failure of a part, then drain.

        Raises:
            StationError: a station ended by an error that it does not know.
        """
        _bound_arenas()

        def on_signal(number: int, _frame: FrameType | None) -> None:
            log.info("stopping", signal=signal.Signals(number).name)
            self._stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, on_signal)
        self.start()
        # Receiving is many short turns between disk and peer: threads that are cut off in the middle of one cost more.
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        gc.freeze()  # what was imported lives on; the collector would look through it for every few instances
        self._stop.wait()
        self.stop()
        if self._failure:
            raise self._failure

    def stop(self) -> None:
        """Stop accepting, finish what is in hand within `drain_seconds`, close everything."""
        deadline = time.monotonic() + self._settings.agent.drain_seconds
        if self._schedule:
            self._schedule.shutdown()
        self._listener.stop(self._settings.agent.drain_seconds / 2)
        self._stop.set()
        for process in self._further_processes:
            process.stop()  # nobody waits for what is in hand there; it is a row, and waits for the next start
        for thread in self._threads:
            if thread.ident is not None:  # started
                thread.join(max(0.0, deadline - time.monotonic()))
        # What is still in hand ends, and is tried again after the next start.
        for sender in self._senders:
            sender.abort()
        self._process.stop()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()  # each has at most one transaction left, which SQLite bounds
        self._presence.withdraw()
        self._store.close()
        self._data_directory.release()
        log.info("stopped")

    def _analyse(self, started: threading.Event) -> None:
        """The thread that owns the analysis process: the kernel kills the process when this thread ends."""
        if self._can_run(self._station, self._process, started):
            self._guarded(self._station.run)

    def _compare(self, station: FurtherStation, process: AnalysisProcess, started: threading.Event) -> None:
        """The thread that owns the analysis process of a further bundle."""
        if self._can_run(station, process, started):
            station.run(self._stop)

    def _can_run(
        self, station: AnalysisStation | FurtherStation, process: AnalysisProcess, started: threading.Event
    ) -> bool:
        """Start an analysis process; whether its station goes on, be it for a later try. `start` waits for this."""
        try:
            process.start()
        except WorkerUnavailableError as error:  # may pass, as a device that is short of memory; senders do not wait
            station.problem = str(error)
            log.error(
                "an analysis process cannot be started", station=threading.current_thread().name, reason=str(error)
            )
        except Exception as error:  # noqa: BLE001 - `start` raises it
            self._failure = error
            return False
        finally:
            started.set()
        return True

    def _guarded(self, run: Callable[[threading.Event], None]) -> None:
        """A station that ends by an error ends the daemon: a supervisor restarts it, silence would not be noticed."""
        while not self._stop.is_set():
            try:
                run(self._stop)
            except OperationalError as error:  # locked for longer than we wait, or its disk is full
                log.error("the database is not available", reason=str(error.orig), next_try_in_s=DATABASE_PAUSE_S)
                self._stop.wait(DATABASE_PAUSE_S)
            except Exception as error:  # noqa: BLE001 - whatever it is, it ends the daemon
                self._fail(error)

    def _timely(self, what: str, job: Callable[[], None]) -> None:
        """A job of the schedule, which would keep an exception to itself."""
        try:
            job()
        except (OperationalError, OSError) as error:  # as above; the next time may be better
            log.error("a job of the schedule waits", job=what, reason=str(error).splitlines()[0])
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends the daemon
            self._fail(error)

    def _settle(self, result: CommitmentResult) -> bool:
        """Record what a PACS says of a storage commitment; whether its transaction is known."""
        try:
            return committing.settle_commitment(self._store, result)
        except DBAPIError as error:
            self._on_database_error(error)
            raise

    def _on_database_error(self, error: DBAPIError) -> None:
        """A peer met what no station had to look at: damage would have its like refused for good."""
        if damage.is_damage(error):
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        name = threading.current_thread().name
        if damage.is_damage(error):
            self._failure = damage.damaged(self._store.path, getattr(error, "orig", error))
            log.error("the database is damaged; the daemon stops", station=name, reason=str(self._failure))
        else:
            log.error("a station ended; the daemon stops", station=name, exc_info=error)
            self._failure = StationError(f"the daemon stopped: {type(error).__name__} in {name}, see the log")
        self._stop.set()

    def _each_second(self) -> None:
        """Look at the clock; declare studies complete; tell who runs, and what hinders."""
        if jump := self._clock.jump():
            shifting.shift_waits(self._store, jump, self._clock.follow)
            self._ready_since += jump
            if self._schedule:
                self._schedule.clock_was_set()
            log.warning("the machine's clock was set", by_s=round(jump.total_seconds()))
        self._declare_complete()
        self._tell()

    def _declare_complete(self) -> None:
        open_studies = self._listener.open_studies()
        now = self._store.clock()
        for receiving in claiming.receiving_studies(self._store):
            rule = self._rules.of(receiving.calling_ae_title)
            reason = complete_because(
                rule,
                now=now,
                ready_since=self._ready_since,
                last_received_at=from_text(receiving.last_received_at),
                waiting_since=from_text(receiving.waiting_since),
                is_held_by_association=open_studies.get(receiving.study_instance_uid, rule.quiet_s) < rule.quiet_s,
            )
            if reason and claiming.queue_study(self._store, receiving, reason):
                log.info("study complete", study_instance_uid=receiving.study_instance_uid, reason=reason)

    def _tell(self) -> None:
        """Say who runs, for `pacs-agent status`."""
        self._presence.tell(
            version=__version__,
            ae_title=self._settings.listener.ae_title,
            host=self._settings.listener.host,
            port=self.port,
            ready_since=to_text(self._ready_since),
            device=self._process.device,
            worker_pid=self._process.pid,
            problem=self._station.problem,
            further_problem=next((f"{each.model[0]}: {each.problem}" for each in self._further if each.problem), None),
        )

    def _each_night(self) -> None:
        """Retention: rows forget a file before it goes, so that no row ever names what is not there."""
        retention, now = self._settings.retention, self._store.clock()

        def days_ago(days: int) -> str:
            return to_text(now - timedelta(days=days))

        files = 0
        if retention.instances_days:
            files += self._inbox.remove(retaining.forget_instances(self._store, days_ago(retention.instances_days)))
        if retention.objects_days:
            files += self._outbox.remove(retaining.forget_objects(self._store, days_ago(retention.objects_days)))
        retaining.forget_transactions(self._store, days_ago(TRANSACTIONS_DAYS))
        rows = retaining.forget_rows(self._store, days_ago(retention.rows_days)) if retention.rows_days else 0
        log.info("retention", files=files, studies=rows)


def _bound_arenas() -> None:
    """Keep the C library from giving every association a heap of its own, each as large as its largest instance.

    Measured: 366 MB peak became 285 MB with 8 associations of 10 MB instances, no slower.
    """
    m_arena_max = -8  # mallopt(3)
    with contextlib.suppress(AttributeError, OSError):  # another C library than glibc
        ctypes.CDLL(None).mallopt(m_arena_max, 2)
