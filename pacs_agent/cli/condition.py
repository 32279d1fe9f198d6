"""How the daemon fares, for `status`. Enters: settings. Leaves: a `Condition`. Changes nothing and prints nothing."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pacs_agent.presence import running_state
from pacs_agent.record import reading
from pacs_agent.settings import Settings

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Condition:
    """The fields are a promise to programs; `problems` is why a person is needed, empty when all is well."""

    daemon: Record | None
    queues: list[Record]
    callers: list[Record]
    paused: list[Record]
    free_mb: int
    min_free_mb: int
    destinations: list[Record]
    problems: list[str]


def condition(settings: Settings) -> Condition:
    """Look at it.

    Raises:
        DatabaseError: the database is there and cannot be read.
    """
    daemon = running_state(settings.data_dir)
    free, _ = free_mb(settings)
    problems = [] if daemon else ["the daemon is not running"]
    if daemon and daemon.get("problem"):
        problems.append(f"the analysis waits: {daemon['problem']}")
    if free < (floor := max(settings.agent.min_free_mb, 1)):  # a full disk takes nothing, with or without a floor
        problems.append(f"{free} MB free, the floor is {floor} MB")
    queues: list[Record] = []
    callers: list[Record] = []
    paused: list[Record] = []
    reached: list[Record] = []
    if settings.database_path.is_file():
        queues, callers, paused, reached = (
            reading.query(settings.database_path, sql).records()
            for sql in (reading.QUEUES, reading.CALLERS, reading.PAUSED, reading.DESTINATIONS)
        )
        problems += [_needs(row) for row in queues if row["depth"] and _waits_for_a_person(row)]
    else:
        problems.append(f"there is no database {settings.database_path} yet")
    queues = _with_the_empty(queues, settings)
    stages = {row["stage"] for row in paused}
    outages = {row["name"]: row for row in reached if row.get("unreachable_since")}
    # Away may pass by itself; a PACS that answers and does not want us will not.
    problems += [f"{row['name']}: {error}" for row in reached if "rejected" in (error := row.get("last_error") or "")]
    destinations = [
        {
            "name": target.name,
            "mode": target.mode,
            "ae_title": target.ae_title,
            "host": target.host,
            "port": target.port,
            "folder": str(target.folder) if target.folder else None,
            "paused": bool(stages & {target.name, target.group}),
            "unreachable_since": outages.get(target.name, {}).get("unreachable_since"),
            "next_attempt_at": outages.get(target.name, {}).get("next_attempt_at"),
            "last_error": outages.get(target.name, {}).get("last_error"),
        }
        for target in settings.destinations
    ]
    return Condition(daemon, queues, callers, paused, free, settings.agent.min_free_mb, destinations, problems)


def free_mb(settings: Settings) -> tuple[int, Path]:
    """Free space for the data directory, and the folder it was measured at: the directory itself once it exists."""
    folder = next(each for each in (settings.data_dir, *settings.data_dir.parents) if each.exists())
    return shutil.disk_usage(folder).free >> 20, folder


def _with_the_empty(queues: list[Record], settings: Settings) -> list[Record]:
    """Every queue there is, in one order, so that a program finds each also when it is empty."""
    names: list[tuple[str, str | None, str]] = [
        ("studies", None, status) for status in ("receiving", "queued", "held", "failed")
    ]
    names += [
        ("deliveries", target.name, status)
        for target in settings.destinations
        for status in ("waiting", "held", "parked")
    ]
    there = {(row["queue"], row["destination"], row["status"]): row for row in queues}
    every = dict.fromkeys([*names, *there])
    return [
        there.get(name)
        or {**dict(zip(("queue", "destination", "status"), name, strict=True)), "depth": 0, "oldest": None}
        for name in every
    ]


def _waits_for_a_person(row: Record) -> bool:
    return row["status"] in ("failed", "parked") or (row["queue"], row["status"]) == ("studies", "held")


def _needs(row: Record) -> str:
    where = f" at {row['destination']}" if row["destination"] else ""
    noun = {"studies": "study", "deliveries": "delivery"}[row["queue"]] if row["depth"] == 1 else row["queue"]
    return f"{row['depth']} {noun} {row['status']}{where}"
