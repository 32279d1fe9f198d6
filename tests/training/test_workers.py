"""Processes that make or decode pictures do not outlive the command that started them."""

import errno
import os
import select
import subprocess
import sys
from pathlib import Path

import pytest
from peers import wait_for

START = """
from pathlib import Path

from pacs_agent.analyse.pixels import InputSpec
from training.mura import Image

def cache(paths):
    from training.cache import open_cache
    images = [Image(path, "hand", "patient00001", "hand/patient00001/study1", 0) for path in paths]
    open_cache(Path("cache"), images, InputSpec(16, "stretch", 32, 3, 0.485, 0.229), workers=2)

def inspect(paths):
    from training.inspect import unreadable_pictures
    unreadable_pictures(paths, lambda _: None)

def phantoms(paths):
    from training.workers import processes
    with processes(2) as pool:
        list(pool.map(Path.read_bytes, paths))

if __name__ == "__main__":
    {command}([Path("pipe")] * 200)
"""


@pytest.mark.parametrize("command", ["cache", "inspect", "phantoms"])
def test_workers_end_with_a_killed_parent(tmp_path: Path, command: str) -> None:
    """SIGKILL of the parent while its processes read pictures: soon nobody reads them any more."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core: inspect starts no processes")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "start.py").write_text(START.format(command=command))
    parent = subprocess.Popen(
        [sys.executable, "start.py"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(Path.cwd())}
    )
    pipe = -1
    try:
        pipe = wait_for(lambda: opened(tmp_path / "pipe"), what="a reader")
        parent.kill()
        parent.wait(20)
        # POLLERR of the writing end: no reader is left.
        poll = select.poll()
        poll.register(pipe, 0)
        wait_for(lambda: poll.poll(0), timeout_s=20, what="the end of the readers")
    finally:
        parent.kill()
        parent.wait(20)
        if pipe >= 0:
            os.close(pipe)


def opened(path: Path) -> int | None:
    """The writing end of a pipe that somebody reads; None: nobody does yet."""
    try:
        return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None
