"""What the record costs with 100,000 studies in it against 1,000: all that stations, commands and views ask of it.

The same operations on two databases that differ in nothing but the number of studies that are finished; fifty studies
are in hand in both. Milliseconds are medians; exit 1 where one of them is more than three times slower with the many
and takes more than a millisecond more, what counts through everything (`status`) apart.
"""

import argparse
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from records import Record

from pacs_agent.record import claiming, committing, delivering, reading

SLOWER, MORE_MS = 3.0, 1.0
IN_HAND = 50
STEP = 1_000_000  # between the numbers of one copy and the next
KEYS = ("id", "study_id", "analysis_id", "report_id")
UIDS = ("study_instance_uid", "series_instance_uid", "sop_instance_uid", "path", "sha256", "accession_number")
TIMES = ("received_at", "last_received_at", "at", "analysed_at", "created_at", "delivered_at")
TABLES = ("study", "instance", "analysis", "finding", "report", "delivery", "event")


def grown(folder: Path, studies: int) -> Record:
    """A record with so many studies that are finished, one a minute, two images each; and some in hand."""
    path = folder / f"{studies}.db"
    Record.open(path).close()
    record = Record(path)
    delivering.destinations_since(record, ["pacs"])
    record.receive(1), record.receive(2)
    record.queue()
    [claim] = record.claim()
    record.analyse(claim, pacs=("waiting", None))
    for due in delivering.claim_due(record, "pacs", 1, 60):
        delivering.mark_delivered(record, due, "pacs", "0000")
    record.close()
    with closing(sqlite3.connect(path)) as connection:
        for table in TABLES:
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            chosen = ", ".join(_copied(column) for column in columns)
            connection.execute(
                f"WITH RECURSIVE copy(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM copy WHERE n < {studies - 1})"
                f" INSERT INTO {table} ({', '.join(columns)}) SELECT {chosen} FROM {table}, copy"
            )
        connection.commit()
    record = Record(path)
    record.tick(studies * 60)
    for number in range(IN_HAND):
        record.receive(1000 + number, f"1.4.{number}.in.hand", accession_number=f"H{number}")
    return record


def _copied(column: str) -> str:
    if column in KEYS:
        return f"{column} + n * {STEP}"
    if column in UIDS:
        return f"{column} || '.' || n"
    if column in TIMES:
        return f"strftime('%Y-%m-%dT%H:%M:%fZ', julianday({column}) + n / 1440.0)"
    return column


def operations(record: Record) -> dict[str, Callable[[], object]]:
    """What is asked of it, by name."""
    numbers = iter(range(10_000, 1_000_000))

    def view(sql: str) -> Callable[[], object]:
        return lambda: reading.query(record.path, sql).records()

    def receive() -> None:
        number = next(numbers)
        record.receive(number, f"1.4.{number}", accession_number=f"N{number}")

    def life() -> None:
        receive()
        record.queue()
        for claim in claiming.claim_studies(record, 1, 60):
            record.analyse(claim, pacs=("waiting", None))
        for due in delivering.claim_due(record, "pacs", 1, 60):
            delivering.mark_delivered(record, due, "pacs", "0000", record.clock())
        request = committing.next_request(record, "pacs", lambda: f"2.25.{next(numbers)}", 60, 50)
        assert request
        uids = frozenset(uid for _, uid in request.objects)
        committing.settle_commitment(record, committing.CommitmentResult(request.transaction_uid, uids, {}))

    return {
        "an instance comes in": receive,
        "a study, from its receipt to its commitment": life,
        "which studies are not complete": lambda: claiming.receiving_studies(record),
        "is any study queued": lambda: claiming.has_queued(record),
        "is anything due at a destination": lambda: delivering.has_due(record, "pacs"),
        "is anything to be committed": lambda: committing.has_commitment_due(record, "pacs"),
        "results of a study": view("SELECT * FROM results WHERE study_instance_uid = '1.4.7'"),
        "results by accession number": view("SELECT * FROM results WHERE accession_number = 'A1.7'"),
        "results of an hour": view(
            f"SELECT * FROM results WHERE received_at >= '{record.now()[:11]}' ORDER BY received_at DESC LIMIT 20"
        ),
        "images of a study": view("SELECT * FROM image_results WHERE study_instance_uid = '1.4.7'"),
        "deliveries of a study": view("SELECT * FROM deliveries WHERE study_instance_uid = '1.4.7'"),
        "history of a study": view("SELECT * FROM events WHERE study_instance_uid = '1.4.7'"),
        "queues, counted (status)": view(reading.QUEUES),
        "callers, counted (status)": view(reading.CALLERS),
    }


def main() -> int:
    """Print the table; 1 where something grows with the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--few", type=int, default=1_000)
    parser.add_argument("--many", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=25)
    arguments = parser.parse_args()
    slow = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        few, many = (operations(grown(folder, count)) for count in (arguments.few, arguments.many))
        print(f"{'milliseconds, median':44} {arguments.few:>9} {arguments.many:>9}   ratio")
        for what, operation in few.items():
            seconds: tuple[list[float], list[float]] = ([], [])
            for _ in range(arguments.repeat):  # in turn
                for spent, run in zip(seconds, (operation, many[what]), strict=True):
                    started = time.perf_counter()
                    run()
                    spent.append(time.perf_counter() - started)
            small, big = (1000 * statistics.median(spent) for spent in seconds)
            is_slow = big > SLOWER * small and big - small > MORE_MS and "counted" not in what
            slow += is_slow
            print(f"{what:44} {small:9.2f} {big:9.2f} {big / small:7.2f}{'  grows' if is_slow else ''}")
    return int(bool(slow))


if __name__ == "__main__":
    sys.exit(main())
