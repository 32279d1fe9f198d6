"""A real daemon on its port: changed messages from several connections, a good sender beside them, and what is left.

Each case is one message, of a connection that goes on for as long as the daemon lets it. The bytes are made of the seed
and the worker alone; which of them meet on a connection depends on the answers.
"""

import random
import re
import select
import socket
import struct
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from fuzz_parsers import Tally
from mutate import (
    COMMITMENT,
    CR,
    NUMBERS,
    TOKENS,
    VERIFICATION,
    associate_rq,
    command_set,
    encode,
    item,
    mutated,
    pdu,
    pdv,
    store,
)
from peers import DaemonProcess, answers_echo, free_port, write_config
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE
from radiographs import cr

from pacs_agent.receive.part10 import read_part10

WORKERS = 6
ANSWER_S = 0.1  # a message that is not answered within this is taken for one that waits for more
MEMORY_MB = 400  # what the daemon may have at most; 512 MB instances are not among the cases
REST_S = 60.0
ALLOWED = {"threads": 2, "files": 12}  # database connections that came with the load stay
LINE = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z \[\w+ *\] ")
UNFORESEEN = ("status=0110", "a thread ended", "connection failed", "[error", "[critical")
SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
CONTEXTS = (1, 3, 5, 7, 9)  # CR in each syntax, Verification, Storage Commitment
Message = list[bytes]


class Sender(threading.Thread):
    """A modality that stores one small instance after the other; each must be answered 0000."""

    def __init__(self, port: int) -> None:
        super().__init__(name="sender", daemon=True)
        self.acknowledged: dict[str, bytes] = {}
        self.broken: list[str] = []
        self.slowest_s = 0.0
        self._port = port
        self._enough = threading.Event()

    def run(self) -> None:
        """Ten instances an association, until told to stop."""
        ae = AE(ae_title="GOOD")
        ae.add_requested_context(CR, ExplicitVRLittleEndian)
        while not self._enough.is_set():
            assoc = ae.associate("127.0.0.1", self._port, ae_title="PACS_AGENT")
            if not assoc.is_established:
                self.broken.append("the good sender got no association")
                self._enough.wait(1)
                continue
            for _ in range(10):
                ds = cr(seed=len(self.acknowledged), side=32)
                began = time.monotonic()
                try:
                    status = assoc.send_c_store(ds).get("Status")
                except RuntimeError:
                    status = None
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)
                if status != 0:
                    self.broken.append(f"the good sender was answered {status}")
                    break
                self.acknowledged[str(ds.SOPInstanceUID)] = encode(ds)
                self._enough.wait(0.05)
            assoc.release()

    def finish(self) -> None:
        """End after the instance in hand."""
        self._enough.set()
        self.join(60)


class Cases:
    """The messages that one worker sends."""

    def __init__(self, seed: int, worker: int) -> None:
        self._chance = random.Random(f"{seed}:port:{worker}")
        self._instances = [encode(cr(side=8), syntax) for syntax in SYNTAXES[:2]]
        kinds: Mapping[str, tuple[Callable[[], Message], int]] = {
            "association requests": (self.association, 15),
            "command sets": (self.command, 25),
            "data sets": (self.data_set, 30),
            "P-DATA": (self.p_data, 15),
            "lengths": (self.length, 5),
            "order": (self.order, 10),
        }
        self._made = {name: make for name, (make, _) in kinds.items()}
        self._weights = [weight for _, weight in kinds.values()]

    def next(self) -> tuple[str, Message]:
        """The kind of case, and the PDUs of it; an association request belongs on a connection of its own."""
        [name] = self._chance.choices(list(self._made), self._weights)
        return name, self._made[name]()

    def calling(self) -> bytes:
        """A calling AE title, mostly a plain one."""
        return self._chance.choice((b"FUZZ", b"FUZZ", b"FUZZ", *(token[:16] for token in TOKENS)))

    def association(self) -> Message:
        """Changed somewhere, or with far too many items."""
        chance = self._chance
        if chance.random() < 0.05:
            many = item(chance.choice((0x20, 0x50, 0x10, 0x54)), chance.randbytes(chance.randrange(8)))
            request = associate_rq(b"FUZZ")[6:] + many * chance.randrange(20_000)
            return [pdu(1, request)]
        request = mutated(chance, associate_rq(self.calling(), syntaxes=SYNTAXES))
        return [request if chance.random() < 0.3 else pdu(1, request[6:])]

    def command(self) -> Message:
        """A changed command set, mostly of a C-STORE-RQ; its data set follows."""
        chance = self._chance
        classes, fields = (CR, CR, VERIFICATION, COMMITMENT), (1, 1, 0x30, 0x100, 0x20, 0xFFF, 0x8001)
        command = command_set("1.2.3.4", chance.choice(classes), chance.choice(fields), chance.randrange(65_536))
        content = self._instances[0] if chance.random() < 0.3 else chance.randbytes(64)
        return store(content, mutated(chance, command), chance.choice(CONTEXTS))

    def data_set(self) -> Message:
        """A good command set, a changed data set."""
        chance = self._chance
        syntax = chance.randrange(2)
        content = mutated(chance, self._instances[syntax])
        uid = f"2.25.{chance.randrange(1 << 64)}"
        return store(content, command_set(uid), 2 * syntax + 1, chance.choice((64, 1000, 16_000)))

    def p_data(self) -> Message:
        """Changed P-DATA-TF PDUs, as a whole or within."""
        chance = self._chance
        pdus = store(self._instances[0], command_set("1.2.3.4"), fragment=500)
        at = chance.randrange(len(pdus))
        pdus[at] = mutated(chance, pdus[at]) if chance.random() < 0.3 else pdu(4, mutated(chance, pdus[at][6:]))
        if chance.random() < 0.3:
            chance.shuffle(pdus)
        return pdus

    def length(self) -> Message:
        """A PDU, or a value in it, that says how long it is and lies."""
        chance = self._chance
        number = chance.choice(NUMBERS)
        if chance.random() < 0.5:
            return [struct.pack(">BBL", chance.choice((1, 4, 4, 5, 7)), 0, number) + chance.randbytes(200)]
        return [pdu(4, struct.pack(">LBB", number, 1, chance.randrange(256)) + chance.randbytes(50))]

    def order(self) -> Message:
        """A PDU that does not belong there, or is none."""
        chance = self._chance
        odd = [pdu(kind, chance.randbytes(chance.choice((0, 4, 20)))) for kind in (2, 3, 5, 6, 7, 8, 255)]
        odd += [
            associate_rq(b"FUZZ"),
            pdu(4, b""),
            pdu(4, pdv(1, 2, b"")),
            chance.randbytes(30),
            b"GET / HTTP/1.1\r\n\r\n",
        ]
        return [chance.choice(odd) for _ in range(chance.randint(1, 3))]


class Worker(threading.Thread):
    """Sends its share of the cases."""

    def __init__(self, port: int, cases: Cases, count: int) -> None:
        super().__init__(name="worker", daemon=True)
        self.tallies: dict[str, Tally] = defaultdict(Tally)
        self.seconds: dict[str, float] = defaultdict(float)
        self.connections = 0
        self._port, self._cases, self._count = port, cases, count
        self._open: socket.socket | None = None

    def run(self) -> None:
        """All of them, one after the other."""
        for _ in range(self._count):
            name, message = self._cases.next()
            began = time.monotonic()
            is_first = name == "association requests"
            is_answered = self._send(message, is_first)
            took = time.monotonic() - began
            tally = self.tallies[name]
            tally.cases += 1
            tally.refused += not is_answered
            tally.slowest_s = max(tally.slowest_s, took)
            self.seconds[name] += took
        self._hang_up()

    def _send(self, message: Message, is_first: bool) -> bool:
        """Whether the connection goes on after it."""
        try:
            if is_first or self._open is None:
                self._hang_up()
                self._connect()
                if not is_first and not self._answer(associate_rq(b"FUZZ", syntaxes=SYNTAXES)):
                    raise OSError("no association")
            if self._answer(b"".join(message)):
                return True
        except OSError:
            pass
        self._hang_up()
        return False

    def _connect(self) -> None:
        self.connections += 1
        self._open = socket.create_connection(("127.0.0.1", self._port), timeout=20)
        self._open.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _answer(self, content: bytes) -> bool:
        """Whether it is answered by a PDU that leaves the association there: accepted, or P-DATA."""
        assert self._open is not None
        self._open.sendall(content)
        if not select.select([self._open], [], [], ANSWER_S)[0]:
            return False
        return self._open.recv(65_536)[:1] in (b"\x02", b"\x04")

    def _hang_up(self) -> None:
        if self._open:
            with suppress(OSError):
                self._open.close()
        self._open = None


def run(folder: Path, seed: int, count: int) -> tuple[dict[str, Tally], dict[str, float], str, list[str]]:
    """Start a daemon in *folder* and send it *count* cases.

    Returns:
        What became of them and how long they took, by kind; the daemon's figures in words; and what is broken.
    """
    port = free_port()
    daemon = DaemonProcess(write_config(folder, port), port, environment=_SHORT_WAITS)
    daemon.start()
    try:
        daemon.run("pause", "analysis")
        before = _figures(daemon)
        sender = Sender(port)
        workers = [Worker(port, Cases(seed, number), count // WORKERS) for number in range(WORKERS)]
        for thread in (sender, *workers):
            thread.start()
        for worker in workers:
            worker.join()
        sender.finish()
        broken = [*sender.broken, *_after(daemon, before), *_kept(daemon, sender)]
        after = _figures(daemon)
    finally:
        code = daemon.stop()
    broken += [f"the daemon's exit code was {code}"] if code else []
    broken += _log(daemon.log_path)
    tallies: dict[str, Tally] = defaultdict(Tally)
    seconds: dict[str, float] = defaultdict(float)
    for worker in workers:
        for name, tally in worker.tallies.items():
            tallies[name].cases += tally.cases
            tallies[name].refused += tally.refused
            tallies[name].slowest_s = max(tallies[name].slowest_s, tally.slowest_s)
            seconds[name] += worker.seconds[name]
    connections = sum(worker.connections for worker in workers)
    facts = (
        f"{connections} connections; the good sender stored {len(sender.acknowledged)}"
        f" instances beside them, the slowest in {sender.slowest_s * 1000:.0f} ms\n"
        f"daemon before and after: threads {before['threads']} and {after['threads']}, descriptors {before['files']}"
        f" and {after['files']}, peak memory {before['peak_mb']} and {after['peak_mb']} MB"
    )
    return tallies, seconds, facts, broken


_SHORT_WAITS = {
    "PACS_AGENT__LISTENER__ASSOCIATION_TIMEOUT_SECONDS": "5",
    "PACS_AGENT__LISTENER__TRANSFER_TIMEOUT_SECONDS": "5",
    "PACS_AGENT__LISTENER__IDLE_TIMEOUT_SECONDS": "5",
}


def _figures(daemon: DaemonProcess) -> dict[str, int]:
    """Threads, descriptors and peak memory of the listening process."""
    assert daemon.process is not None
    process = Path("/proc", str(daemon.process.pid))
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    return {
        "threads": int(status["Threads"]),
        "files": len(list((process / "fd").iterdir())),
        "peak_mb": int(status["VmHWM"].split()[0]) >> 10,
    }


def _after(daemon: DaemonProcess, before: Mapping[str, int]) -> Iterator[str]:
    """What the daemon still holds once all is quiet."""
    assert daemon.process is not None
    if daemon.process.poll() is not None:
        yield f"the daemon has ended with {daemon.process.returncode}"
        return
    if not answers_echo(daemon.port, "PACS_AGENT"):
        yield "C-ECHO is not answered"
    deadline = time.monotonic() + REST_S
    while time.monotonic() < deadline and _leaks(daemon, before):
        time.sleep(0.5)
    for what in _leaks(daemon, before):
        yield f"{what} more than before: {_figures(daemon)[what] - before[what]}"
    if (peak := _figures(daemon)["peak_mb"]) > MEMORY_MB:
        yield f"the daemon had {peak} MB"


def _leaks(daemon: DaemonProcess, before: Mapping[str, int]) -> list[str]:
    now = _figures(daemon)
    return [what for what in ("threads", "files") if now[what] > before[what] + ALLOWED[what]]


def _kept(daemon: DaemonProcess, sender: Sender) -> Iterator[str]:
    """What the good sender was told is kept, is kept as it was sent."""
    data = daemon.config.parent / "data"
    paths = {row["sop_instance_uid"]: row["path"] for row in daemon.sql("SELECT sop_instance_uid, path FROM instance")}
    for uid, content in sender.acknowledged.items():
        if uid not in paths:
            yield f"instance {uid} was acknowledged and is not known"
        elif bytes(read_part10(data / paths[uid]).encoded) != content:
            yield f"instance {uid} is not what was sent"
    if not sender.acknowledged:
        yield "the good sender stored nothing"


def _log(path: Path) -> Iterator[str]:
    """Every line is one of ours and plain, and none tells of what was not foreseen, each such thing once."""
    unforeseen: Counter[str] = Counter()
    traceback: list[str] | None = None  # what follows a line that tells of an error
    for line in [*path.read_bytes().decode("utf-8", "backslashreplace").split("\n"), ""]:
        is_ours = bool(LINE.match(line))
        if traceback is not None and (is_ours or not line):
            unforeseen["\n".join(traceback[-24:])] += 1
            traceback = None
        if not line.isprintable():
            yield f"a line of the log that is not plain text: {line[:200]!r}"
        elif is_ours and any(words in line for words in UNFORESEEN):
            traceback = [LINE.sub("", line).split("  ")[0]]
        elif traceback is not None:
            traceback.append(line)
        elif line and not is_ours:
            yield f"a line of the log that is not ours: {line[:200]!r}"
    yield from (f"{times} times not foreseen: {what}" for what, times in unforeseen.items())
