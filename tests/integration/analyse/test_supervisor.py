"""The analysis process dies, hangs, is orphaned: its parent is told, and the next request finds a fresh one."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from peers import wait_for
from PIL import Image

from pacs_agent.analyse.bundle import load_bundle, write_bundle
from pacs_agent.analyse.supervisor import AnalysisProcess, CapturePicture, CaptureRequest, ImageRequest
from pacs_agent.errors import BundleError, WorkerDiedError, WorkerUnavailableError

MEMORY_MB = 8192
GONE_S = 20


@pytest.fixture(scope="module")
def start_process() -> Iterator[Callable[..., AnalysisProcess]]:
    """Makes analysis processes of the shipped bundle, and stops them at the end."""
    made: list[AnalysisProcess] = []

    def make(**changes: object) -> AnalysisProcess:
        arguments = {
            "bundle": load_bundle("demonstration"),
            "device": "cpu",
            "batch_images": 2,
            "max_pixels": 1_000_000,
            "memory_limit_mb": MEMORY_MB,
            "timeout_s": 60,
        }
        made.append(AnalysisProcess(**{**arguments, **changes}))
        return made[-1]

    yield make
    for process in made:
        process.stop()


@pytest.fixture(scope="module")
def process(start_process: Callable[..., AnalysisProcess]) -> AnalysisProcess:
    """A real one, shared: it is started again whenever a test killed it."""
    return start_process()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A PNG that can be read."""
    path = tmp_path / "good.png"
    Image.fromarray(np.tile(np.arange(80, dtype=np.uint8), (60, 1))).save(path)
    return path


@pytest.fixture
def impostor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes a module that says it is ready and then does as told; gives its name."""

    def write(then: str) -> str:
        start = """
            import os, signal, sys
            from multiprocessing.connection import Connection
            pipe = Connection(int(sys.argv[1]))
            pipe.recv_bytes()
            pipe.send_bytes(b'{"ready": true, "device": "none"}')
            pipe.recv_bytes()
        """
        (tmp_path / "impostor.py").write_text(textwrap.dedent(start) + then + "\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        return "impostor"

    return write


def request(path: Path, key: str = "1", body_part: str | None = "wrist") -> ImageRequest:
    return ImageRequest(key, path, body_part)


def capture_request(path: Path) -> CaptureRequest:
    return CaptureRequest(path, "wrist", 1.0, "title", ("line",), ("none", "most"))


def wait_until_read(fifo: Path) -> int:
    """Returns when the process at the other end has opened *fifo*; it then blocks until the descriptor is closed."""
    return os.open(fifo, os.O_WRONLY)


def test_good_and_bad_pictures_in_one_request(process: AnalysisProcess, picture: Path, tmp_path: Path) -> None:
    """Every image gets its answer, in order: probabilities, or the reason why it could not be read."""
    text = tmp_path / "text.dcm"
    text.write_text("not a picture")
    wide = tmp_path / "wide.png"
    Image.new("L", (2000, 1000)).save(wide)
    requests = [
        request(picture, "a", "shoulder"),
        request(text, "b"),
        request(picture, "c", None),
        request(tmp_path / "absent", "d"),
        request(wide, "e"),
    ]
    answers = process.analyse(requests)

    assert [answer.key for answer in answers] == ["a", "b", "c", "d", "e"]
    for answer in (answers[0], answers[2]):
        assert answer.reason is None
        assert answer.abnormal_probability is not None
        assert 0 < answer.abnormal_probability < 1
        assert len(answer.member_probabilities) == 3
    for answer in (answers[1], answers[3], answers[4]):
        assert answer.abnormal_probability is None
        assert answer.member_probabilities == ()
        assert answer.reason
    assert "1000000 pixels" in (answers[4].reason or "")
    assert answers[0].abnormal_probability != answers[2].abnormal_probability  # gated by another part
    assert process.device == "cpu"
    assert process.pid is not None
    assert process.analyse([]) == []


def test_killed_while_idle_it_is_started_again(process: AnalysisProcess, picture: Path) -> None:
    """kill -9 between two requests costs nothing: the next one starts a fresh process and is answered."""
    process.start()
    first = process.pid
    assert first is not None
    gone = psutil.Process(first)
    os.kill(first, signal.SIGKILL)
    assert gone.wait(GONE_S) is not None
    assert process.pid is None
    assert process.analyse([request(picture)])[0].reason is None
    assert process.pid not in (None, first)


def test_killed_during_a_request_it_is_told_and_started_again(
    process: AnalysisProcess, picture: Path, tmp_path: Path
) -> None:
    """kill -9 in the middle of a request raises with the signal; the next request is answered."""
    process.start()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with ThreadPoolExecutor(1) as killer:

        def kill() -> int:
            descriptor = wait_until_read(fifo)
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            return descriptor

        descriptor = killer.submit(kill)
        with pytest.raises(WorkerDiedError, match=r"was killed by signal 9 \(SIGKILL\)"):
            process.analyse([request(picture), request(fifo, "2")])
        os.close(descriptor.result())
    assert process.pid is None
    assert process.analyse([request(picture)])[0].reason is None


def test_stop_from_another_thread_frees_the_one_that_waits(
    process: AnalysisProcess, picture: Path, tmp_path: Path
) -> None:
    """`stop` ends a request that hangs, and later ones too, until `start`."""
    process.start()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with ThreadPoolExecutor(1) as stopper:

        def stop() -> int:
            descriptor = wait_until_read(fifo)
            process.stop()
            return descriptor

        descriptor = stopper.submit(stop)
        with pytest.raises(WorkerDiedError, match="was stopped"):
            process.analyse([request(fifo)])
        os.close(descriptor.result())
    with pytest.raises(WorkerDiedError, match="was stopped"):
        process.analyse([request(picture)])
    process.start()
    assert process.analyse([request(picture)])[0].reason is None


def test_signals_are_the_parents_matter(process: AnalysisProcess, picture: Path) -> None:
    """SIGINT and SIGTERM, which a terminal or a service manager may send to all, do not end it."""
    process.start()
    pid = process.pid
    assert pid is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    assert process.analyse([request(picture)])[0].reason is None
    assert process.pid == pid


def test_memory_limit_costs_the_picture_only(
    process: AnalysisProcess, start_process: Callable[..., AnalysisProcess], picture: Path, tmp_path: Path
) -> None:
    """A picture that needs more memory than the process may use gets a reason; its neighbour is analysed."""
    process.analyse([request(picture)])
    status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    used_mb = next(int(line.split()[1]) for line in status if line.startswith("VmData")) // 1024
    large = tmp_path / "large.png"
    pixels = np.zeros((13_000, 13_000), np.uint8)
    pixels[0, 0] = 255
    Image.fromarray(pixels).save(large, compress_level=1)
    tight = start_process(memory_limit_mb=used_mb + 100, max_pixels=200_000_000)
    hungry, modest = tight.analyse([request(large), request(picture, "2")])
    assert "memory" in (hungry.reason or "")
    assert modest.reason is None
    tight.stop()


@pytest.mark.parametrize(
    ("then", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", r"was killed by signal 11 \(SIGSEGV\)"),
        ("sys.exit(3)", "ended with exit status 3"),
        ("signal.pause()", "did not answer in 2 s"),
        ("os.write(pipe.fileno(), b'\\0\\0'); signal.pause()", "did not answer in 2 s"),
        ("os.close(pipe.fileno()); os.kill(os.getpid(), 9)", "was killed by signal 9"),
        ("pipe.send_bytes(b'nonsense'); signal.pause()", "cannot be understood"),
        ("pipe.send_bytes(b'[]'); signal.pause()", "cannot be understood"),
        ("pipe.send_bytes(b'{\"images\": []}'); signal.pause()", "cannot be understood"),
        (
            'pipe.send_bytes(b\'{"images": [{"key": "1", "reason": null, "abnormal_probability": NaN, \''
            " b'\"member_probabilities\": []}]}'); signal.pause()",
            "cannot be understood",
        ),
    ],
)
def test_every_way_to_fail_is_told(
    start_process: Callable[..., AnalysisProcess],
    impostor: Callable[[str], str],
    picture: Path,
    then: str,
    reason: str,
) -> None:
    """Death, silence and nonsense each raise with their reason, and leave no process behind."""
    process = start_process(module=impostor(then), timeout_s=2)
    process.start()
    pid = process.pid
    assert pid is not None
    with pytest.raises(WorkerDiedError, match=reason):
        process.analyse([request(picture)])
    assert process.pid is None
    assert not psutil.pid_exists(pid)


def test_request_that_is_never_taken(
    start_process: Callable[..., AnalysisProcess], impostor: Callable[[str], str], picture: Path
) -> None:
    """A stopped process does not hold its parent, however long the message is."""
    process = start_process(module=impostor(""), timeout_s=2)
    process.start()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(WorkerDiedError, match="did not answer in 2 s"):
        process.analyse([request(picture, "k" * 1000)] * 5000)
    assert process.pid is None


def test_dies_while_starting(start_process: Callable[..., AnalysisProcess]) -> None:
    """A process that cannot even start is told as a death."""
    with pytest.raises(WorkerDiedError, match="ended with exit status 1"):
        start_process(module="pacs_agent.no_such_module").start()


def test_device_short_of_memory_at_a_start_is_no_process(
    start_process: Callable[..., AnalysisProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes a moment to go; meanwhile it does not pass for one that is ready."""
    program = """
        import signal, sys
        from multiprocessing.connection import Connection
        pipe = Connection(int(sys.argv[1]))
        pipe.recv_bytes()
        pipe.send_bytes(b'{"exhausted": "cuda has not memory enough for the weights"}')
        signal.pause()
    """
    (tmp_path / "short.py").write_text(textwrap.dedent(program))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    process = start_process(module="short", timeout_s=30)
    for ensure in (process.start, process.ensure):
        with pytest.raises(WorkerUnavailableError, match="memory enough for the weights"):
            ensure()
        assert process.pid is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_cuda_asked_for_and_absent(start_process: Callable[..., AnalysisProcess]) -> None:
    """The process's own line about a missing device is what `start` raises."""
    process = start_process(device="cuda")
    with pytest.raises(BundleError, match="device cuda was asked for"):
        process.start()
    assert process.pid is None


def test_bundle_swapped_after_it_was_checked(start_process: Callable[..., AnalysisProcess], tmp_path: Path) -> None:
    """Other weights than those whose hash is in the records are refused, even where they are right in themselves."""
    shipped = load_bundle("demonstration")
    fields = shipped.manifest.model_dump(mode="json", exclude={"weights_sha256"})
    checked = write_bundle(tmp_path / "bundle", fields, shipped.weights_path)
    process = start_process(bundle=checked)
    weights = bytearray(shipped.weights_path.read_bytes())
    weights[-1] ^= 1
    (tmp_path / "other").write_bytes(weights)
    checked.path.rename(tmp_path / "before")
    write_bundle(checked.path, fields, tmp_path / "other")
    with pytest.raises(BundleError, match="changed since it was checked"):
        process.start()


PARENT = """
import sys
from pathlib import Path
from pacs_agent.analyse.bundle import load_bundle
from pacs_agent.analyse.supervisor import AnalysisProcess, CapturePicture, CaptureRequest, ImageRequest

process = AnalysisProcess(load_bundle("demonstration"), device="cpu", batch_images=2, max_pixels=1000,
                          memory_limit_mb=8192, timeout_s=60)
process.start()
print(process.pid, flush=True)
process.analyse([ImageRequest("1", Path(sys.argv[1]), None)])
"""


def test_ends_with_its_parent(tmp_path: Path) -> None:
    """kill -9 of the parent ends the process even in the middle of a request."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen([sys.executable, "-c", PARENT, str(fifo)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = psutil.Process(int(parent.stdout.readline()))
        descriptor = wait_until_read(fifo)
        parent.kill()
        worker.wait(GONE_S)  # raises if it lives on
    os.close(descriptor)


def run_worker(parent_pid: int) -> tuple[subprocess.Popen[bytes], Connection]:
    """The real module without its supervisor, configured as the child of *parent_pid*."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "pacs_agent.analyse.worker", str(theirs.fileno())]
    with theirs:
        worker = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    pipe = Connection(ours.detach())
    bundle = load_bundle("demonstration")
    configuration = {
        "bundle": str(bundle.path),
        "weights_sha256": bundle.manifest.weights_sha256,
        "device": "cpu",
        "batch_images": 2,
        "max_pixels": 1000,
        "memory_limit_mb": MEMORY_MB,
        "parent_pid": parent_pid,
    }
    pipe.send_bytes(json.dumps(configuration).encode())
    return worker, pipe


def test_ends_when_the_pipe_is_closed() -> None:
    """The end of the pipe alone is enough to end it, quietly."""
    worker, pipe = run_worker(os.getpid())
    with worker:
        assert json.loads(pipe.recv_bytes()) == {"ready": True, "device": "cpu"}
        pipe.close()
        assert worker.wait(GONE_S) == 0


def test_orphan_from_the_start_ends_at_once() -> None:
    """A parent that died before the process could ask to be told is noticed by its id."""
    worker, pipe = run_worker(os.getpid() + 1)
    with worker, pipe:
        assert worker.wait(GONE_S) == 0
        with pytest.raises((EOFError, ConnectionResetError)):
            pipe.recv_bytes()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_on_cuda_under_the_memory_limit(start_process: Callable[..., AnalysisProcess], picture: Path) -> None:
    """The memory limit leaves CUDA room: the process starts, answers and names its device."""
    process = start_process(device="auto")
    assert process.analyse([request(picture)])[0].reason is None
    assert process.device == "cuda:0"
    process.stop()


def test_captures_come_as_pixels(process: AnalysisProcess, picture: Path, tmp_path: Path) -> None:
    """An analysed picture, and one of which nothing is known any more, is shown; another has its reason."""
    process.analyse([request(picture)])
    shown = process.capture(capture_request(picture))
    assert isinstance(shown, CapturePicture)
    assert len(shown.rgb) == shown.rows * shown.columns * 3
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: process.pid is None, GONE_S, "its end")
    assert process.capture(capture_request(picture)) == shown
    assert "cannot be read" in str(process.capture(capture_request(tmp_path / "absent")))
    assert process.analyse([request(picture)])[0].attention is not None


@pytest.mark.parametrize(
    ("then", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("signal.pause()", "did not answer in 2 s"),
        ("pipe.send_bytes(b'{}'); signal.pause()", "cannot be understood"),
        ('pipe.send_bytes(b\'{"rows": 99999, "columns": 3}\'); signal.pause()', "cannot be understood"),
        ("pipe.send_bytes(b'{\"rows\": 2, \"columns\": 2}'); pipe.send_bytes(b'1'); signal.pause()", "cannot be under"),
        ('pipe.send_bytes(b\'{"rows": 2, "columns": 2}\'); signal.pause()', "did not answer in 2 s"),
    ],
)
def test_every_way_to_fail_a_capture_is_told(
    start_process: Callable[..., AnalysisProcess],
    impostor: Callable[[str], str],
    picture: Path,
    then: str,
    reason: str,
) -> None:
    """Death, silence and nonsense raise as for an analysis; never as if the process could not be started."""
    process = start_process(module=impostor(then), timeout_s=2)
    process.start()
    with pytest.raises(WorkerDiedError, match=reason) as caught:
        process.capture(capture_request(picture))
    assert not isinstance(caught.value, WorkerUnavailableError)
    assert process.pid is None


def test_stopped_during_a_capture_says_nothing_of_the_image(
    start_process: Callable[..., AnalysisProcess], impostor: Callable[[str], str], picture: Path
) -> None:
    """A stop is nobody's fault: the study is analysed again after the next start."""
    process = start_process(module=impostor("signal.pause()"), timeout_s=60)
    process.start()
    with ThreadPoolExecutor(1) as other:
        waiting = other.submit(process.capture, capture_request(picture))
        wait_for(process._conversation.locked, GONE_S, "the request")
        process.stop()
        with pytest.raises(WorkerUnavailableError, match="stopped"):
            waiting.result(GONE_S)
