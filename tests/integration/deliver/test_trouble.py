"""One bad object, one bad destination, one late word: what else waits goes on."""

import contextlib
import errno
import os
import socket
import ssl
import subprocess
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from certificates import Authority, Certificate
from deliveries import CR, Delivery, Pacs
from peers import accepts_tcp, dcmtk, free_port, wait_for
from pydicom.uid import Comprehensive3DSRStorage
from pynetdicom import evt
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from pacs_agent.deliver import sender
from pacs_agent.deliver.association import client_tls, echo
from pacs_agent.deliver.sender import BROKEN_IN_A_ROW
from pacs_agent.receive.connection import hang_up
from pacs_agent.record import analysing, deciding, delivering
from pacs_agent.record.receiving import Receipt, Reception
from pacs_agent.record.store import Store
from pacs_agent.settings import Tls
from pacs_agent.study.eligibility import Eligibility
from pacs_agent.study.instance import Instance


def aborting(*poison: str) -> Callable[[evt.Event], int]:
    """A PACS that aborts on some objects and stores the others."""

    def answer(event: evt.Event) -> int:
        if str(event.request.AffectedSOPInstanceUID) in poison:
            event.assoc.abort()
        return 0

    return answer


# -- one bad object ---------------------------------------------------------------------------------------------------


def test_object_that_breaks_associations_holds_nobody_up(delivery: Delivery, pacs: Pacs) -> None:
    """The first waits its own growing pause, the others go at once by the next association, attempts uncounted."""
    pacs.start(CR)
    first, *others = [delivery.put(number) for number in range(4)]
    pacs.answer = aborting(first)
    with capture_logs() as logs:
        delivery.send()
    assert [line["event"] for line in logs] == ["object not delivered yet", "association ended early"]
    assert [(row["status"], row["attempts"]) for row in delivery.rows()] == [("waiting", 1)] + 3 * [("waiting", 0)]
    assert delivery.send() == 3
    assert [(row["status"], row["attempts"]) for row in delivery.rows()] == [("waiting", 1)] + 3 * [("delivered", 1)]
    delivery.tick(delivery.pause_s(delivery.rows()[0]))
    late = delivery.put(9)
    assert delivery.send() == 2
    assert pacs.received == [first, *others, late, first]
    assert [(row["status"], row["attempts"]) for row in delivery.rows()][::4] == [("waiting", 2), ("delivered", 1)]


def test_object_that_breaks_associations_does_not_stop_the_destination(delivery: Delivery, pacs: Pacs) -> None:
    """The association could be made, so there is no outage, and what comes new is due at once."""
    pacs.start(CR)
    pacs.answer = aborting(delivery.put(1))
    delivery.send()
    assert not delivering.has_due(delivery.store, "pacs")
    delivery.put(2)
    assert delivering.has_due(delivery.store, "pacs")


def test_pacs_that_breaks_on_everything_is_not_hammered(delivery: Delivery, pacs: Pacs) -> None:
    """After a few associations in a row without an answer `run` waits between them; one answer ends that."""
    pacs.start(CR)
    pacs.answer = lambda event: event.assoc.abort() or 0
    for number in range(BROKEN_IN_A_ROW + 2):
        delivery.put(number)
    waits: list[float] = []

    class Watched(Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0)
            if len(waits) == 2:
                pacs.answer = lambda _event: 0
            if timeout == 0.01:
                self.set()  # idle: nothing is due any more
            return True

    delivery.sender.run(Watched(), idle_s=0.01)
    retry_s = float(delivery.destination.retry_seconds)
    assert waits == [retry_s, retry_s, 0.01]
    assert [row["status"] for row in delivery.rows()] == (BROKEN_IN_A_ROW + 1) * ["waiting"] + ["delivered"]


def test_association_that_ends_before_anything_is_sent_is_an_outage(
    delivery: Delivery, pacs: Pacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer that accepts and hangs up at once is not asked in a loop, and no object is blamed."""

    def hang_up_first(*_: Any) -> bool:
        assoc = delivery.sender._assoc
        assert assoc is not None
        pacs.hang_up()
        wait_for(lambda: not assoc.is_established, 20, "the end of the association")
        return True

    monkeypatch.setattr(delivering, "is_waiting", hang_up_first)
    pacs.start(CR)
    delivery.put(1)
    assert delivery.send() == 1
    [row] = delivery.rows()
    assert (row["status"], row["attempts"]) == ("waiting", 0)
    assert row["last_error"] == "the association ended before anything could be sent"
    assert not delivering.has_due(delivery.store, "pacs")
    assert pacs.received == []


# -- our own trouble --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EIO], ids=errno.errorcode.get)
def test_shortage_of_our_own_parks_nothing(
    delivery: Delivery, pacs: Pacs, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A file that cannot be read now waits, not offered and not counted, and goes when it can; the others go on."""
    pacs.start(CR)
    short, other = (delivery.put(each) for each in range(2))
    read = sender.dcmread

    def read_one(path: Path) -> Any:
        if path.stem == short:
            raise OSError(number, os.strerror(number))
        return read(path)

    monkeypatch.setattr(sender, "dcmread", read_one)
    delivery.send()
    first, second = delivery.rows()
    assert (first["status"], first["attempts"], second["status"]) == ("waiting", 0, "delivered")
    assert os.strerror(number) in first["last_error"]
    assert delivery.pause_s(first) > 0
    monkeypatch.setattr(sender, "dcmread", read)
    delivery.tick(delivery.pause_s(first))
    delivery.send()
    assert pacs.received == [other, short]


def test_run_that_the_database_ended_leaves_no_lease(
    delivery: Delivery, pacs: Pacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outcome that could not be written: the next `run` takes up the whole batch at once, and all is delivered."""
    pacs.start(CR)
    uids = [delivery.put(number) for number in range(3)]

    def locked(*_: Any) -> None:
        raise OperationalError("UPDATE", {}, Exception("database is locked"))

    stop = Event()
    with monkeypatch.context() as patch:
        patch.setattr(delivering, "mark_delivered", locked)
        with pytest.raises(OperationalError):
            delivery.sender.run(stop)
    thread = threading.Thread(target=delivery.sender.run, args=(stop, 0.02))
    thread.start()
    try:
        wait_for(lambda: {row["status"] for row in delivery.rows()} == {"delivered"}, 20, "the delivery")
    finally:
        stop.set()
        thread.join(20)
    assert sorted(pacs.received) == sorted([uids[0], *uids])


# -- an outage --------------------------------------------------------------------------------------------------------


def test_outage_is_one_line_and_no_attempt(delivery: Delivery) -> None:
    """Nothing was offered to a destination out of reach; all that waits shows its reason and its pause."""
    for number in range(25):
        delivery.put(number)
    with capture_logs() as logs:
        delivery.send()
    assert [(line["event"], line["objects"]) for line in logs] == [("destination not reached", 20)]
    rows = delivery.rows()
    assert {(row["attempts"], row["last_error"], row["next_attempt_at"]) for row in rows} == {
        (0, "cannot be reached", rows[0]["next_attempt_at"])
    }
    assert delivery.pause_s(rows[0]) > 0


def test_end_of_an_outage_wakes_what_waits_for_it(delivery: Delivery, pacs: Pacs) -> None:
    """One association and all are due, but for the object that waits for a reason of its own."""
    pacs.start(CR)
    poison = delivery.put(0)
    pacs.answer = aborting(poison)
    delivery.send()
    own_s = delivery.pause_s(delivery.rows()[0])
    pacs.stop()
    for number in range(1, 30):
        delivery.put(number)
    delivery.send()
    delivery.tick(own_s / 2)
    assert not delivering.has_due(delivery.store, "pacs")
    assert {delivery.pause_s(row) > 0 for row in delivery.rows()} == {True}
    pacs.start(CR)
    assert delivering.make_due(delivery.store, ["parked"]) == 0  # `retry`: a person knows that it is back
    assert (delivery.send(), delivery.send(), delivery.send()) == (20, 9, 0)
    assert [row["status"] for row in delivery.rows()] == ["waiting"] + 29 * ["delivered"]
    assert delivery.pause_s(delivery.rows()[0]) == own_s / 2


def test_first_association_after_an_outage_ends_it(delivery: Delivery, pacs: Pacs) -> None:
    """What does not fit in it does not wait for another pause, and a new outage starts with a short one."""
    for number in range(30):
        delivery.put(number)
    pauses = []
    for _ in range(4):
        delivery.send()
        pauses.append(delivery.pause_s(delivery.rows()[0]))
        delivery.tick(pauses[-1])
    assert pauses == sorted(set(pauses))
    pacs.start(CR)
    assert (delivery.send(), delivery.send()) == (20, 10)
    pacs.stop()
    delivery.put(31)
    delivery.send()
    [row] = [each for each in delivery.rows() if each["status"] == "waiting"]
    assert delivery.pause_s(row) <= delivery.destination.retry_seconds


def test_object_of_an_unknown_host_waits(store: Store, data_dir: Path) -> None:
    """A name that is not resolved is an outage: it neither parks nor ends the sender."""
    delivery = Delivery(store, data_dir, 104, host="no-such-host.invalid")
    delivery.put(1)
    assert delivery.send() == 1
    [row] = delivery.rows()
    assert (row["status"], row["attempts"]) == ("waiting", 0)
    assert row["last_error"].startswith("cannot be reached: ")


def test_dead_destination_does_not_hold_up_another(delivery: Delivery, pacs: Pacs) -> None:
    """Each has a sender, a queue and an outage of its own."""
    pacs.start(CR)
    dead = delivery.add("archive", free_port())
    uids = [delivery.put(number) for number in range(3)]
    assert dead.deliver_once(Event()) == 3
    stop = Event()
    threads = [threading.Thread(target=each.run, args=(stop, 0.02)) for each in (dead, delivery.sender)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: len(pacs.received) == 3, 20, "the delivery")
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)
    assert pacs.received == uids
    found = {(row["destination"], row["status"]) for row in delivery.rows()}
    assert found == {("pacs", "delivered"), ("archive", "waiting")}


# -- a person's late word ---------------------------------------------------------------------------------------------


def test_withdrawal_during_a_batch_stops_what_was_not_sent(delivery: Delivery, pacs: Pacs) -> None:
    """What a person takes back while another object is on its way does not go."""
    pacs.start(CR)
    first, _second, third = (delivery.put(number) for number in range(3))

    def answer(event: evt.Event) -> int:
        if str(event.request.AffectedSOPInstanceUID) == first:
            assert deciding.settle(delivery.store, "1.4.1", "withdraw", "wrong patient")
        return 0

    pacs.answer = answer
    assert delivery.send() == 3
    assert pacs.received == [first, third]
    rows = delivery.rows()
    assert [row["status"] for row in rows] == ["delivered", "cancelled", "delivered"]
    assert [row["attempts"] for row in rows] == [1, 0, 1]  # it was never offered


def test_study_held_during_a_batch_stops_what_was_not_sent(delivery: Delivery, pacs: Pacs) -> None:
    """Its report is given back, and goes once a person has accepted the study."""
    pacs.start(CR)
    first, second = (delivery.put(number) for number in range(2))

    def answer(event: evt.Event) -> int:
        if str(event.request.AffectedSOPInstanceUID) == first:
            for number, patient in enumerate(("ONE", "TWO")):
                facts = Instance(f"1.9.{number}", CR, "1.3", "1.4.1", patient_id=patient)
                receipt = Receipt(facts, Eligibility("ignored", "x"), "y", f"y{number}", 1, "XR1", delivery.store.now())
                Reception(delivery.store).accept(receipt)
        return 0

    pacs.answer = answer
    assert delivery.send() == 2
    assert [(row["status"], row["attempts"]) for row in delivery.rows()] == [("delivered", 1), ("waiting", 0)]
    assert delivery.send() == 0
    assert deciding.settle(delivery.store, "1.4.1", "accept", None)
    assert delivery.send() == 1
    assert pacs.received == [first, second]


@pytest.mark.parametrize(
    ("status", "ends", "events"),
    [(0, "delivered", ["delivered", "cancelled too late"]), (0xA700, "cancelled", ["refused after it was cancelled"])],
)
def test_withdrawal_during_a_transfer_tells_the_truth(
    delivery: Delivery, pacs: Pacs, status: int, ends: str, events: list[str]
) -> None:
    """The PACS has it: the row and the history say so, and the study stays withdrawn. A refusal brings nothing back."""
    pacs.start(CR)
    uid = delivery.put(1)

    def answer(_event: evt.Event) -> int:
        assert deciding.settle(delivery.store, "1.4.1", "withdraw", "wrong patient")
        return status

    pacs.answer = answer
    delivery.send()
    assert [row["status"] for row in delivery.rows()] == [ends]
    assert delivery.events() == [(event, uid) for event in events]
    assert [row.state for row in delivery.store.rows(analysing.select(analysing.study.c.state))] == ["withdrawn"]


# -- draining ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def deaf() -> Iterator[Pacs]:
    """A PACS that takes a C-STORE and never answers it."""
    made, let_go = Pacs(), Event()

    def hold(_event: evt.Event) -> int:
        let_go.wait(60)
        return 0

    made.answer = hold
    yield made
    let_go.set()
    made.stop()


def test_abort_ends_a_transfer_to_a_deaf_peer(store: Store, data_dir: Path, deaf: Pacs) -> None:
    """`run` returns while the peer still holds the request, and writes nothing after; the object stays waiting."""
    delivery = Delivery(store, data_dir, deaf.port, timeout_seconds=600)
    deaf.start(CR)
    delivery.put(1)
    delivery.put(2)
    stop = Event()
    thread = threading.Thread(target=delivery.sender.run, args=(stop, 0.02))
    thread.start()
    wait_for(lambda: deaf.received, 20, "the C-STORE")
    stop.set()
    delivery.sender.abort()
    thread.join(20)
    assert not thread.is_alive()
    assert [(row["status"], row["attempts"]) for row in delivery.rows()] == [("waiting", 1), ("waiting", 0)]


def test_abort_ends_a_request_that_is_never_answered(store: Store, data_dir: Path) -> None:
    """A peer that takes the connection and says nothing; an abort before it even connects counts too."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        delivery = Delivery(store, data_dir, silent.getsockname()[1], timeout_seconds=600)
        delivery.put(1)
        stop = Event()
        thread = threading.Thread(target=delivery.sender.run, args=(stop, 0.02))
        thread.start()
        with silent.accept()[0]:
            stop.set()
            delivery.sender.abort()
            thread.join(20)
            assert not thread.is_alive()
        delivery.tick(100_000)
        assert delivery.send() == 1
    assert [(row["status"], row["attempts"]) for row in delivery.rows()] == [("waiting", 0)]


# -- a PACS that is slow, or not there at all --------------------------------------------------------------------------


class Dripping:
    """A way to a PACS on which what comes back drips, after so many PDUs that came whole."""

    def __init__(self, port: int, whole_pdus: int) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._to, self._left = port, whole_pdus
        self._end = Event()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def stop(self) -> None:
        """End it."""
        self._end.set()
        socket.socket.shutdown(self._server, socket.SHUT_RDWR)
        self._server.close()
        for thread in self._threads:
            thread.join(20)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, far = self._server.accept()[0], socket.create_connection(("127.0.0.1", self._to))
                for run in (self._forth, self._back):
                    self._threads.append(threading.Thread(target=run, args=(near, far)))
                    self._threads[-1].start()

    def _forth(self, near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := near.recv(65536):
                far.sendall(data)
        hang_up(far)

    def _back(self, near: socket.socket, far: socket.socket) -> None:
        left = self._left
        with contextlib.suppress(OSError), far.makefile("rb") as answers:
            while len(head := answers.read(6)) == 6:  # PS3.8 9.3.1: every PDU's type and length
                pdu = head + answers.read(int.from_bytes(head[2:], "big"))
                if left:
                    near.sendall(pdu)
                    left -= 1
                    continue
                for byte in pdu:
                    near.sendall(bytes([byte]))
                    if self._end.wait(0.15):
                        break
        hang_up(near)
        near.close()
        far.close()


@pytest.mark.parametrize(("whole_pdus", "attempts"), [(0, 0), (1, 1)])
def test_pacs_that_drips_holds_nobody_for_long(
    store: Store, data_dir: Path, pacs: Pacs, whole_pdus: int, attempts: int
) -> None:
    """A byte now and then keeps no timeout from ending: the association is ended, the object waits, and goes later."""
    dripping = Dripping(pacs.port, whole_pdus)
    delivery = Delivery(store, data_dir, dripping.port, timeout_seconds=1)
    pacs.start(CR)
    uid = delivery.put(1)
    thread = threading.Thread(target=delivery.send)
    thread.start()
    thread.join(15)  # its answer alone drips for longer
    held = thread.is_alive()
    dripping.stop()
    thread.join(20)
    assert not held
    [row] = delivery.rows()
    assert (row["status"], row["attempts"]) == ("waiting", attempts)
    assert row["last_error"]
    delivery.sender = delivery.add("pacs", pacs.port)
    delivery.tick(100_000)
    assert delivery.send() == 1
    assert delivery.rows()[0]["status"] == "delivered"
    assert set(pacs.received) == {uid}


def test_pacs_in_a_black_hole_is_an_outage(store: Store, data_dir: Path) -> None:
    """Nobody refuses and nobody answers: it is given up after the timeout, as a destination out of reach."""
    with contextlib.ExitStack() as held, socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen(0)
        for _ in range(4):  # what does not fit the backlog is dropped, as a firewall does
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(hole.getsockname())
        delivery = Delivery(store, data_dir, hole.getsockname()[1], timeout_seconds=1)
        delivery.put(1)
        thread = threading.Thread(target=delivery.send)
        thread.start()
        thread.join(15)
        assert not thread.is_alive()
    [row] = delivery.rows()
    assert (row["status"], row["attempts"], row["last_error"]) == ("waiting", 0, "cannot be reached")


# -- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signs both sides."""
    return Authority(tmp_path_factory.mktemp("authority"))


@contextmanager
def storescp(authority: Authority, server: Certificate, folder: Path) -> Iterator[int]:
    """DCMTK's storescp that wants a certificate and stores into *folder*; its port."""
    program, port = dcmtk("storescp"), free_port()
    folder.mkdir()
    process = subprocess.Popen(
        [
            program, "+tls", server.key, server.certificate, "+cf", authority.certificate, "-aet", "PACS",
            "-od", folder, str(port),
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(lambda: accepts_tcp(port), 20, "storescp's port")
        yield port
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def secure_pacs(authority: Authority, tmp_path: Path) -> Iterator[Any]:
    """A storescp with a good certificate; its port and the folder it stores into."""
    with storescp(authority, authority.issue("pacs"), tmp_path / "stored") as port:
        yield port, tmp_path / "stored"


@pytest.mark.dcmtk
def test_delivery_over_tls(authority: Authority, secure_pacs: Any, store: Store, data_dir: Path) -> None:
    """Mutual TLS with DCMTK: the object arrives."""
    port, folder = secure_pacs
    own = authority.issue("agent")
    tls = Tls(certificate=own.certificate, key=own.key, ca=authority.certificate)
    delivery = Delivery(store, data_dir, port, tls=tls)
    wait_for(lambda: echo(delivery.destination, "PACS_AGENT") is None, 20, "storescp's C-ECHO")
    delivery.put(1, Comprehensive3DSRStorage)
    assert delivery.send() == 1
    assert [row["status"] for row in delivery.rows()] == ["delivered"]
    assert len(list(folder.iterdir())) == 1


FAULTS = ("plain", "foreign authority", "foreign certificate", "ended", "other host", "no file")


@pytest.mark.dcmtk
@pytest.mark.parametrize("fault", FAULTS)
def test_without_trust_nothing_is_sent(
    authority: Authority, secure_pacs: Any, store: Store, data_dir: Path, tmp_path: Path, fault: str
) -> None:
    """No TLS, a server that we do not trust, or that does not trust us, one by another name, a lost certificate, one of
    ours that has ended: waiting, never parked or sent."""
    port, folder = secure_pacs
    own, ended = authority.issue("agent"), authority.issue("ended", days=-1)
    foreign = Authority(tmp_path, "foreign")
    good = Tls(certificate=own.certificate, key=own.key, ca=authority.certificate)
    trusted = Delivery(store, data_dir, port, tls=good)
    wait_for(lambda: echo(trusted.destination, "PACS_AGENT") is None, 20, "storescp's C-ECHO")
    tls: dict[str, Any] = {
        "plain": {},
        "foreign authority": {"tls": good.model_copy(update={"ca": foreign.certificate})},
        "foreign certificate": {"tls": good.model_copy(update=vars(foreign.issue("agent")))},
        "ended": {"tls": good.model_copy(update=vars(ended))},
        "other host": {"tls": good, "host": "localhost"},
        "no file": {"tls": good.model_copy(update={"ca": tmp_path / "absent.pem"})},
    }[fault]
    sender = trusted.add("other", port, **tls)
    trusted.put(1)
    assert sender.deliver_once(Event()) == 1
    [row] = [each for each in trusted.rows() if each["destination"] == "other"]
    assert (row["status"], row["attempts"]) == ("waiting", 0)
    assert list(folder.iterdir()) == []


@pytest.mark.dcmtk
def test_pacs_whose_certificate_has_ended_gets_nothing(
    authority: Authority, store: Store, data_dir: Path, tmp_path: Path
) -> None:
    """However well it is signed: the object waits."""
    own = authority.issue("agent")
    tls = Tls(certificate=own.certificate, key=own.key, ca=authority.certificate)
    with storescp(authority, authority.issue("old-pacs", days=-1), tmp_path / "stored") as port:
        delivery = Delivery(store, data_dir, port, tls=tls)
        delivery.put(1)
        assert delivery.send() == 1
    assert [(row["status"], row["attempts"]) for row in delivery.rows()] == [("waiting", 0)]
    assert list((tmp_path / "stored").iterdir()) == []


def test_pacs_that_speaks_tls_1_1_gets_nothing(authority: Authority) -> None:
    """The same server is talked to with 1.2. BCP 195"""
    own, pacs = authority.issue("agent"), authority.issue("pacs")
    context = client_tls(Tls(certificate=own.certificate, key=own.key, ca=authority.certificate))
    for version, is_refused in ((ssl.TLSVersion.TLSv1_1, True), (ssl.TLSVersion.TLSv1_2, False)):
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(pacs.certificate, pacs.key)
        server.set_ciphers("ALL:@SECLEVEL=0")  # else OpenSSL would not offer 1.1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of TLS 1.1, which is the point
            server.minimum_version, server.maximum_version = ssl.TLSVersion.TLSv1_1, version
        assert is_not_talked_to(context, server) is is_refused


def is_not_talked_to(client: ssl.SSLContext, server: ssl.SSLContext) -> bool:
    """Whether the client ends the handshake; both in this thread, in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (
        client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1"),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    done = set()
    while len(done) < 2:
        for side in sides:
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return True
    return False
