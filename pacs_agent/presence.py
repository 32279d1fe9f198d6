"""Who runs on a data directory: written by the daemon, read by the commands beside it."""

import json
import os
from pathlib import Path

from pacs_agent.durable import write_durably

STATE_FILE = "daemon.json"

State = dict[str, str | int | None]


class Presence:
    """What a daemon tells of itself.

    Args:
        data_dir: the data directory, which is its own.
    """

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / STATE_FILE
        self._told: State = {}

    def tell(self, **facts: str | int | None) -> None:
        """Write who runs, when it changed."""
        state: State = {"pid": os.getpid(), "pid_started": _started_at(os.getpid()), **facts}
        if state != self._told:
            write_durably(self._path, (json.dumps(state).encode(),), self._path.with_suffix(".tmp"))
            self._told = state

    def withdraw(self) -> None:
        """Nobody runs any more."""
        self._path.unlink(missing_ok=True)


def running_state(data_dir: Path) -> State | None:
    """What a running daemon wrote of itself; None where none runs on this directory."""
    try:
        state: State = json.loads((data_dir / STATE_FILE).read_text())
        # Another process may have got the number of a dead one.
        return state if _started_at(int(state["pid"] or 0)) == state["pid_started"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _started_at(pid: int) -> int:
    """When a process started, in clock ticks since boot. proc(5)"""
    stat = Path(f"/proc/{pid}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[19])  # the name before it may hold anything
