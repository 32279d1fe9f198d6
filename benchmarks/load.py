"""A daemon under load, in three questions: many associations at once, many instances, an analysis that stands still.

`associations`: half of fifty are idle, slow, or never end what they began. Are the others served, and does nobody keep
a place beyond its timeout? `soak`: ten thousand instances. Do memory, threads, descriptors or the time a study grow
from the first quarter to the last? `backlog`: the analysis process is stopped. Is memory bounded, is the disk the
queue, is A700 answered below the disk floor and only there, and does all go on afterwards? The daemon is a process of
its own with the bundle that ships, its PACS an SCP that counts, the images small phantoms. At the end everything that
was answered 0000 is looked for, and its report. Exit 1 where one answer is no.
"""

import argparse
import itertools
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, Queue

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from callers import Caller, Sent, Studies
from holders import KINDS, TIMEOUTS_S, Holder
from peers import wait_for
from sites import Site
from watching import Sample, Watch, growths, worker_pid

OUT_OF_RESOURCES = 0xA700
SETTLE_S = 900.0  # bound: until all is delivered

# -- fifty associations, half of them bad -----------------------------------------------------------------------------

SLACK_S = 3.0  # beyond a timeout, for a machine with other work
KEPT_DESCRIPTORS = 10  # the record keeps up to five connections open, whoever first needed them


def associations(folder: Path, count: int, each: int) -> Iterator[str]:
    """*count* at once, half of them bad, the others with *each* instances; yields what does not hold."""
    listener = "".join(f"{name}_timeout_seconds = {value}\n" for name, value in TIMEOUTS_S.items())
    site = Site(folder, listener=listener)
    good, bad = count - count // 2, count // 2
    images = itertools.chain.from_iterable(Studies())
    with site.running(), Watch(site.daemon) as watch:
        alone, beside = ([list(itertools.islice(images, each)) for _ in range(good)] for _ in range(2))
        never_sent = next(images)
        alone_s, _ = _send_at_once(site, alone)
        before = _at_rest(site, watch)
        holders = [Holder(site.daemon.port, kind, never_sent) for kind in itertools.islice(itertools.cycle(KINDS), bad)]
        for holder in holders:
            holder.start()
        beside_s, at_once = _send_at_once(site, beside)
        for holder in holders:
            holder.join(max(TIMEOUTS_S.values()) + 30)
        site.settle(SETTLE_S)
        after = _at_rest(site, watch)
        left = _connections(site)
        yield from site.missing()
    print(f"{at_once} connections at once: {good} send {each} instances each, {bad} are idle, slow or break off")
    rates = [good * each / seconds for seconds in (alone_s, beside_s)]
    ratio = rates[1] / rates[0]
    print(f"{'instances a second':40} {rates[0]:6.1f} alone {rates[1]:6.1f} beside them, ratio {ratio:.2f}")
    for kind, (_, bound, _) in KINDS.items():
        if held := [holder.held_s for holder in holders if holder.kind == kind]:
            print(f"{kind:40} {len(held):6} held {max(held):6.1f} s  {bound} timeout {TIMEOUTS_S[bound]} s")
            if max(held) > TIMEOUTS_S[bound] + SLACK_S:
                yield f"{kind}: held a place for {max(held):.1f} s"
    if at_once < count:
        yield f"only {at_once} were open at once"
    if len(site.acknowledged) < 2 * good * each:
        yield f"{len(site.acknowledged)} of {2 * good * each} instances were acknowledged"
    if left:
        yield f"{left} connections stayed open"
    for what, more in (("threads of the daemon", 0), ("descriptors of the daemon", KEPT_DESCRIPTORS)):
        was, became = before.figures[what], after.figures[what]
        print(f"{what:40} {was:6.0f} before {became:5.0f} after")
        if became > was + more:
            yield f"{what}: {was:.0f} before and {became:.0f} after"


def _at_rest(site: Site, watch: Watch) -> Sample:
    """The daemon when it has no connection and its threads have ended, or as it is after ten seconds of waiting."""
    looks: list[Sample] = []

    def rests() -> bool:
        time.sleep(0.5)
        looks.append(watch.look())
        return not _connections(site) and len({each.figures["threads of the daemon"] for each in looks[-3:]}) == 1

    with suppress(pytest.fail.Exception):
        wait_for(lambda: rests() and len(looks) > 2, 10)
    return looks[-1]


def _send_at_once(site: Site, loads: list[list[Sent]]) -> tuple[float, int]:
    """An association for each load, all open before the first sends; seconds of sending, how many were open."""
    seen: list[tuple[float, int]] = []
    barrier = threading.Barrier(len(loads), lambda: seen.append((time.monotonic(), _connections(site))))

    def send(instances: list[Sent]) -> None:
        with Caller(site.daemon.port) as caller:
            caller.associate()
            barrier.wait(60)
            for instance in instances:
                site.store(caller, instance)
            caller.release()

    senders = [threading.Thread(target=send, args=(load,), daemon=True) for load in loads]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(300)
    began, at_once = seen[0] if seen else (float("-inf"), 0)
    return time.monotonic() - began, at_once


def _connections(site: Site) -> int:
    """Those that the daemon holds on its port."""
    assert site.daemon.process
    open_now = psutil.Process(site.daemon.process.pid).net_connections("tcp")
    return sum(each.laddr.port == site.daemon.port and each.status == psutil.CONN_ESTABLISHED for each in open_now)


# -- many instances ---------------------------------------------------------------------------------------------------

AHEAD = 48  # studies that the modalities are ahead of the PACS
MODALITIES = 2
JUDGED_FROM = 2_000  # instances; the first quarter of fewer is the start, not the run
LIMIT = 1.15
# Other programs' work shows in the clock, which is not growth; an association more or less shows in the other two.
LIMITS = {"seconds a study": 1.5, "threads of the daemon": 1.3, "descriptors of the daemon": 1.3}


def soak(folder: Path, count: int) -> Iterator[str]:
    """*count* instances, received, analysed and delivered; yields what does not hold."""
    site = Site(folder)
    began = time.monotonic()
    with site.running(), Watch(site.daemon, done=lambda: len(site.reports)) as watch:
        _keep_sending(site, count)
        site.settle(SETTLE_S)
        yield from site.missing()
    done, spent = len(site.reports), time.monotonic() - began
    print(f"{len(site.acknowledged)} instances acknowledged, {done} studies delivered in {spent:.0f} s")
    if len(site.acknowledged) < count:
        yield f"{count - len(site.acknowledged)} instances were not acknowledged"
    if len(watch.workers) > 1:
        yield f"the analysis process was replaced {len(watch.workers) - 1} times"
    try:
        found = growths(watch.samples, LIMIT, LIMITS)
    except ValueError as error:
        print(error)
        return
    print(f"{'median of the quarter':40}    first     last   ratio  limit")
    for each in found:
        print(f"{each.what:40} {each.first:8.2f} {each.last:8.2f} {each.ratio:7.3f} {each.limit:6.2f}")
        if each.grows and count >= JUDGED_FROM:
            yield f"{each.what}: grows, {each.ratio:.2f} times"
    if count < JUDGED_FROM:
        print(f"growth is judged from {JUDGED_FROM} instances on")


def _keep_sending(site: Site, count: int) -> None:
    """Modalities send studies until there are *count* instances, never far ahead of the PACS."""
    waiting: Queue[list[Sent]] = Queue(MODALITIES)
    made_all = threading.Event()

    def send() -> None:
        while not (made_all.is_set() and waiting.empty()):
            with suppress(Empty):
                site.send(waiting.get(timeout=0.2))

    senders = [threading.Thread(target=send, daemon=True) for _ in range(MODALITIES)]
    for sender in senders:
        sender.start()
    left = count
    for number, study in enumerate(Studies()):
        wait_for(lambda number=number: number - len(site.reports) < AHEAD, SETTLE_S, "delivery")
        waiting.put(study[:left])
        left -= len(study[:left])
        if not left:
            break
    made_all.set()
    for sender in senders:
        sender.join(60)


# -- an analysis that stands still ------------------------------------------------------------------------------------

BACKLOG_MB = 32.0  # memory that a backlog may take, of whatever length
ROOM_MB = 8  # left above the floor when it is to be reached
STOPPED_S = 7200


def backlog(folder: Path, count: int) -> Iterator[str]:
    """*count* instances while the analysis is stopped, then more until the disk floor; yields what does not hold."""
    floor_mb = shutil.disk_usage(folder).free // 2 >> 20
    site = Site(folder, more=f"[model]\ntimeout_seconds = {STOPPED_S}\n", min_free_mb=floor_mb)
    studies = Studies()
    with site.running(), Watch(site.daemon) as watch:
        _send_one_by_one(site, studies, 20)  # what the first ones take is no backlog
        site.settle(SETTLE_S)
        before = watch.look()
        worker = worker_pid(site.data_dir)
        os.kill(worker, signal.SIGSTOP)
        try:
            began = time.monotonic()
            statuses = _send_one_by_one(site, studies, count)
            rate = len(statuses) / (time.monotonic() - began)
            during = watch.look()
            with _ballast(folder, floor_mb + ROOM_MB):
                at_floor = _until_refused(site, studies)
                refused = site.send(next(studies))
            room_again = site.send(next(studies))
        finally:
            os.kill(worker, signal.SIGCONT)
        resumed = time.monotonic()
        site.settle(SETTLE_S)
        drained_s = time.monotonic() - resumed
        after = watch.look()
        yield from site.missing()
    waited_mb = sum(each.size_bytes for each in site.acknowledged.values()) / 1e6
    what = "memory of the daemon, MB"
    most = max(each.figures[what] for each in watch.samples)
    print(f"{len(statuses)} instances while the analysis stood still, {rate:.1f} a second, {waited_mb:.0f} MB on disk")
    print(f"{what:40} {before.figures[what]:6.1f} before {during.figures[what]:6.1f} then {most:6.1f} at most"
          f" {after.figures[what]:6.1f} after")  # fmt: skip
    print(f"at the floor of {floor_mb} MB {at_floor} instances were stored before the first A700; delivered, when the"
          f" analysis went on, within {drained_s:.0f} s")  # fmt: skip
    if any(statuses):
        yield f"{sum(map(bool, statuses))} instances were refused above the floor"
    if most > before.figures[what] + BACKLOG_MB:
        yield f"{what}: {most - before.figures[what]:.0f} more than before"
    if at_floor is None:
        yield "no instance was refused below the floor"
    if set(refused) != {OUT_OF_RESOURCES}:
        yield f"below the floor the answers were {refused}"
    if any(room_again):
        yield f"above the floor again the answers were {room_again}"
    if len(watch.workers) > 1:
        yield "the analysis process was replaced"


def _send_one_by_one(site: Site, studies: Studies, count: int) -> list[int]:
    """Studies, each by an association of its own, until there are *count* instances; their statuses."""
    statuses: list[int] = []
    while len(statuses) < count:
        statuses += site.send(next(studies))
    return statuses


def _until_refused(site: Site, studies: Studies) -> int | None:
    """How many instances were stored before the first A700; None where none came, or one above the floor."""
    stored = 0
    while stored < 100 * ROOM_MB:
        for status in site.send(next(studies)):
            if status:
                return stored if status == OUT_OF_RESOURCES else None
            stored += 1
    return None


@contextmanager
def _ballast(folder: Path, leave_mb: int) -> Iterator[None]:
    """A file that leaves so much of the disk."""
    path = folder / "ballast"
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(folder).free - (leave_mb << 20))
    try:
        yield
    finally:
        path.unlink()


def main() -> int:
    """Print the figures and what does not hold; 1 where anything does not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("question", nargs="*", default=["associations", "soak", "backlog"], help="%(default)s")
    parser.add_argument("--associations", type=int, default=50, help="at once, half of them bad (%(default)s)")
    parser.add_argument("--each", type=int, default=12, help="instances of each good association (%(default)s)")
    parser.add_argument("--instances", type=int, default=10_000, help="of the soak (%(default)s)")
    parser.add_argument("--backlog", type=int, default=2_000, help="instances while the analysis stands (%(default)s)")
    parser.add_argument("--work", type=Path, help="a folder on the disk to use; a new one within is used, and removed")
    arguments = parser.parse_args()
    questions: dict[str, Callable[[Path], Iterator[str]]] = {
        "associations": lambda folder: associations(folder, arguments.associations, arguments.each),
        "soak": lambda folder: soak(folder, arguments.instances),
        "backlog": lambda folder: backlog(folder, arguments.backlog),
    }
    if unknown := set(arguments.question) - questions.keys():
        parser.error(f"no such question: {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the daemon as Ctrl-C does
    failed = 0
    for name in arguments.question:
        with tempfile.TemporaryDirectory(prefix="load-", dir=arguments.work) as folder:
            print(f"-- {name}")
            for line in questions[name](Path(folder)):
                print(f"NO: {line}")
                failed += 1
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
