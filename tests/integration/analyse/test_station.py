"""The analysis station on a real database: what is nobody's fault costs no study anything."""

import errno
import itertools
import os
import sqlite3
import textwrap
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from peers import wait_for
from radiographs import hand
from sqlalchemy import select

from pacs_agent.analyse.bundle import load_bundle
from pacs_agent.analyse.station import AnalysisStation
from pacs_agent.analyse.supervisor import AnalysisProcess
from pacs_agent.errors import WorkerUnavailableError
from pacs_agent.record import analysing, claiming, receiving
from pacs_agent.record.reading import query
from pacs_agent.record.store import Store
from pacs_agent.record.tables import study
from pacs_agent.record.times import from_text
from pacs_agent.study.bodypart import map_body_part
from pacs_agent.study.eligibility import Eligibility
from pacs_agent.study.instance import Instance

# Starts only once a file named `device-is-back` lies beside it, then answers every image.
MOODY = """
    import json, sys
    from multiprocessing.connection import Connection
    from pathlib import Path
    pipe = Connection(int(sys.argv[1]))
    pipe.recv_bytes()
    if not Path(__file__).with_name("device-is-back").exists():
        sys.exit(3)
    pipe.send_bytes(b'{"ready": true, "device": "none"}')
    while True:
        images = json.loads(pipe.recv_bytes())["images"]
        answers = [{"key": image["key"], "abnormal_probability": .5, "member_probabilities": [], "reason": None}
                   for image in images]
        pipe.send_bytes(json.dumps({"images": answers}).encode())
"""


@pytest.fixture
def queued(store: Store) -> Store:
    """A database with one complete study of one image, its file in the inbox."""
    (store.path.parent / "inbox").mkdir()
    (store.path.parent / "inbox" / "x").touch()
    facts = Instance("1.2.1", "1.2.840.10008.5.1.4.1.1.1", "1.3", "1.4", body_part_examined="HAND")
    receipt = receiving.Receipt(facts, Eligibility("received", None), "inbox/x", "x", 1, "XR1", store.now())
    receiving.Reception(store).accept(receipt)
    [waiting] = claiming.receiving_studies(store)
    assert claiming.queue_study(store, waiting, "quiet")
    return store


@pytest.fixture
def moody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AnalysisProcess]:
    """An analysis process whose device is away until a file says that it is back."""
    (tmp_path / "moody.py").write_text(textwrap.dedent(MOODY))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    process = AnalysisProcess(
        load_bundle("demonstration"), device="cpu", batch_images=2, max_pixels=1, memory_limit_mb=2048, timeout_s=30,
        module="moody",
    )  # fmt: skip
    yield process
    process.stop()


def station(store: Store, process: Any, make_reports: Callable[..., Any] = lambda claim, findings, left_out: []) -> Any:
    return AnalysisStation(
        store=store,
        data_dir=store.path.parent,
        bundle=load_bundle("demonstration"),
        process=process,
        assess=lambda facts, received_on: Eligibility("received", None),
        map_body_part=map_body_part,
        make_reports=make_reports,
        discard_unrecorded=lambda: None,
        batch_studies=4,
        lease_s=60,
    )


def state(store: Store) -> tuple[str, int, str | None]:
    """State, deaths and claim of the study."""
    with sqlite3.connect(store.path) as connection:
        return connection.execute("SELECT state, deaths, claimed_until FROM study").fetchone()


def test_process_that_cannot_start_costs_no_study_a_death(
    queued: Store, moody: AnalysisProcess, tmp_path: Path
) -> None:
    """However often it fails, the study stays queued and unclaimed, the reason is told; then it is analysed."""
    working = station(queued, moody)
    for _ in range(3):
        with pytest.raises(WorkerUnavailableError, match="exit status 3"):
            working.work_once(threading.Event())
        assert state(queued) == ("queued", 0, None)

    stop = threading.Event()
    thread = threading.Thread(target=working.run, args=(stop, 0.05))
    thread.start()
    try:
        wait_for(lambda: working.problem is not None, what="the problem")
        assert "exit status 3" in working.problem
        (tmp_path / "device-is-back").touch()
        wait_for(lambda: state(queued)[0] == "analysed", what="the analysis")
        wait_for(lambda: working.problem is None, what="the end of the problem")
    finally:
        stop.set()
        moody.stop()
        thread.join(30)
    assert not thread.is_alive()


UNREAD = """
    import json, sys
    from multiprocessing.connection import Connection
    pipe = Connection(int(sys.argv[1]))
    pipe.recv_bytes()
    pipe.send_bytes(b'{"ready": true, "device": "none"}')
    while True:
        images = json.loads(pipe.recv_bytes())["images"]
        answers = [{"key": image["key"], "abnormal_probability": None, "member_probabilities": [],
                    "reason": "Input/output error", "unread": True} for image in images]
        pipe.send_bytes(json.dumps({"images": answers}).encode())
"""


def test_file_that_is_never_given_back_fails_its_study_in_the_end(
    queued: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a bounded number of tries, each later than the last; the reason says what a person can do."""
    (tmp_path / "unread.py").write_text(textwrap.dedent(UNREAD))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    process = AnalysisProcess(
        load_bundle("demonstration"), device="cpu", batch_images=2, max_pixels=1, memory_limit_mb=2048, timeout_s=30,
        module="unread",
    )  # fmt: skip
    moment = [datetime(2026, 1, 5, 10, 0, tzinfo=UTC)]
    queued.clock = lambda: moment[0]
    working = station(queued, process)
    try:
        pauses = []
        while state(queued)[0] == "queued":
            assert working.work_once(threading.Event()) == 1
            if until := state(queued)[2]:
                pauses.append((from_text(until) - moment[0]).total_seconds())
                assert working.work_once(threading.Event()) == 0
                moment[0] = from_text(until) + timedelta(seconds=1)
        assert pauses == [5, 10, 20]
        [(status, reason)] = query(queued.path, "SELECT status, reason FROM results").rows
        assert (status, reason) == (
            "failed", "Input/output error; `retry` when the disk is well, or send it again",
        )  # fmt: skip
    finally:
        process.stop()


def test_read_that_failed_and_death_do_not_add_up(queued: Store) -> None:
    """Each has its own count, whichever came before; the end of an analysis forgets both."""
    days = itertools.count()
    queued.clock = lambda: datetime(2026, 1, 5, tzinfo=UTC) + timedelta(days=next(days))
    for _ in range(claiming.READS_ALLOWED - 1):
        [claim] = claiming.claim_studies(queued, 1, 60)
        assert not claiming.put_off(queued, claim, "Input/output error", 5)
    for _ in range(claiming.DEATHS_ALLOWED - 1):
        [claim] = claiming.claim_studies(queued, 1, 60)
        assert claiming.worker_died(queued, [claim], "it was killed") == []
    [claim] = claiming.claim_studies(queued, 1, 60)
    assert claiming.put_off(queued, claim, "Input/output error", 5)
    analysing.fail_study(queued, claim, "Input/output error")
    assert queued.rows(select(study.c.deaths, study.c.reads, study.c.alone)) == [(0, 0, False)]


EXHAUSTED = """
    import sys
    from pathlib import Path
    import torch
    from pacs_agent.analyse import worker
    from pacs_agent.analyse.ensemble import Ensemble
    examine = Ensemble._examine
    def short(*arguments):
        if not Path(__file__).with_name("device-is-back").exists():
            raise torch.OutOfMemoryError("CUDA out of memory")
        return examine(*arguments)
    Ensemble._examine = short
    worker.main(int(sys.argv[1]))
"""


def test_device_short_of_memory_costs_no_study_a_death(
    queued: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process lives on, the study waits and the reason is told; then it is analysed."""
    hand().save_as(queued.path.parent / "inbox" / "x", enforce_file_format=True)
    (tmp_path / "exhausted.py").write_text(textwrap.dedent(EXHAUSTED))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    process = AnalysisProcess(
        load_bundle("demonstration"), device="cpu", batch_images=2, max_pixels=1_000_000, memory_limit_mb=8192,
        timeout_s=60, module="exhausted",
    )  # fmt: skip
    working = station(queued, process)
    try:
        for _ in range(2):
            with pytest.raises(WorkerUnavailableError, match="cpu has not memory enough for one image"):
                working.work_once(threading.Event())
            assert state(queued) == ("queued", 0, None)
            pid = process.pid
        (tmp_path / "device-is-back").touch()
        assert working.work_once(threading.Event()) == 1
        assert state(queued)[0] == "analysed"
        assert process.pid == pid is not None
    finally:
        process.stop()


@pytest.mark.parametrize(("number", "ends"), [(errno.ENOSPC, "analysed"), (errno.ENOENT, "failed")])
def test_full_disk_is_waited_for_and_a_missing_file_is_not(
    queued: Store, moody: AnalysisProcess, tmp_path: Path, number: int, ends: str
) -> None:
    """A report that cannot be written for want of space is made later; another failure is the study's own."""
    (tmp_path / "device-is-back").touch()
    tries = []

    def make_reports(claim: Any, findings: Any, left_out: Any) -> list[Any]:
        tries.append(claim)
        if len(tries) == 1:
            raise OSError(number, "no")
        return []

    working = station(queued, moody, make_reports)
    stop = threading.Event()
    thread = threading.Thread(target=working.run, args=(stop, 0.05))
    thread.start()
    try:
        wait_for(lambda: state(queued)[0] == ends, what=f"the study to be {ends}")
    finally:
        stop.set()
        moody.stop()
        thread.join(30)
    assert len(tries) == (2 if ends == "analysed" else 1)


def test_study_whose_files_are_gone_fails_and_reports_nothing(
    queued: Store, moody: AnalysisProcess, tmp_path: Path
) -> None:
    """Nothing can be said of what is not there; `retry` tries it when the sender has sent it again."""
    (tmp_path / "device-is-back").touch()
    (queued.path.parent / "inbox" / "x").unlink()
    made: list[Any] = []
    station(queued, moody, lambda claim, findings: made.append(claim) or []).work_once(threading.Event())
    assert state(queued)[0] == "failed"
    assert made == []
