"""A running daemon watched from outside: memory, threads, descriptors and processor time of its two processes."""

import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from peers import DaemonProcess

from pacs_agent.presence import running_state

PROCESSES = ("daemon", "analysis process")


@dataclass(frozen=True, slots=True)
class Sample:
    """One look.

    Attributes:
        at: `time.monotonic()`.
        done: studies delivered by then.
        figures: name to value; memory is what no file backs (RssAnon), for pages of libraries come and go.
        processor_s: user and system time of both processes since their start.
    """

    at: float
    done: int
    figures: dict[str, float]
    processor_s: float


@dataclass(frozen=True, slots=True)
class Growth:
    """A figure in the first and the last quarter of a run.

    Attributes:
        limit: the ratio beyond which it grows.
    """

    what: str
    first: float
    last: float
    limit: float

    @property
    def ratio(self) -> float:
        """Last to first; 1 where there was nothing and is nothing."""
        return self.last / self.first if self.first else 1.0 + self.last

    @property
    def grows(self) -> bool:
        """Whether the last quarter is beyond the limit."""
        return self.ratio > self.limit


class Watch:
    """Looks at a daemon in a thread of its own; a context.

    Args:
        daemon: started.
        done: how many studies are delivered.
        every_s: between two looks.
    """

    def __init__(self, daemon: DaemonProcess, done: Callable[[], int] = lambda: 0, every_s: float = 1.0) -> None:
        assert daemon.process is not None
        self.samples: list[Sample] = []
        self.workers: set[int] = set()  # process ids; more than one: it was replaced
        self._data_dir = daemon.config.parent / "data"
        self._daemon = psutil.Process(daemon.process.pid)
        self._done = done
        self._every_s = every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> "Watch":
        self.look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._ended.wait(self._every_s):
            with suppress(psutil.Error, OSError):
                self.look()

    def look(self) -> Sample:
        """One sample more.

        Raises:
            psutil.Error, OSError: a process was just not there.
        """
        pid = worker_pid(self._data_dir)
        self.workers.add(pid)
        figures: dict[str, float] = {}
        processor_s = 0.0
        for name, process in zip(PROCESSES, (self._daemon, psutil.Process(pid)), strict=True):
            figures[f"memory of the {name}, MB"] = anonymous_mb(process.pid)
            figures[f"threads of the {name}"] = process.num_threads()
            figures[f"descriptors of the {name}"] = process.num_fds()
            spent = process.cpu_times()
            processor_s += spent.user + spent.system
        self.samples.append(Sample(time.monotonic(), self._done(), figures, processor_s))
        return self.samples[-1]


def worker_pid(data_dir: Path) -> int:
    """The analysis process' id."""
    state = running_state(data_dir)
    if state is None or not isinstance(state["worker_pid"], int):
        raise ProcessLookupError("no analysis process runs")
    return state["worker_pid"]


def anonymous_mb(pid: int) -> float:
    """RssAnon of a process. proc(5)"""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise OSError("no RssAnon")


def growths(samples: Sequence[Sample], limit: float, limits: Mapping[str, float]) -> list[Growth]:
    """Each figure's median in the first and the last quarter of the studies, and the time a study in both.

    Args:
        samples: in their order, to the end of the run.
        limit: ratio of last to first beyond which a figure grows.
        limits: others for some figures.

    Raises:
        ValueError: a quarter has too few samples.
    """
    total = samples[-1].done
    running = [each for each in samples if 0 < each.done < total]  # before and after it nothing is delivered
    first = [each for each in running if each.done * 4 <= total]
    last = [each for each in running if each.done * 4 > 3 * total]
    if any(not quarter or quarter[0].done == quarter[-1].done for quarter in (first, last)):
        raise ValueError("too short a run to compare its quarters")
    found = []
    for name in first[0].figures:
        values = [statistics.median(each.figures[name] for each in quarter) for quarter in (first, last)]
        found.append(Growth(name, *values, limits.get(name, limit)))
    for name, seconds in (
        ("seconds a study", lambda one: one.at),
        ("processor seconds a study", lambda one: one.processor_s),
    ):
        values = [
            (seconds(quarter[-1]) - seconds(quarter[0])) / (quarter[-1].done - quarter[0].done)
            for quarter in (first, last)
        ]
        found.append(Growth(name, *values, limits.get(name, limit)))
    return found
