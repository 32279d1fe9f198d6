"""The analysis process seen from outside: started, asked, killed when it hangs, started again when it died.

Enters: paths of images and their body parts. Leaves: an answer for each, on demand its capture, or `WorkerDiedError`.
Never imports torch, never decodes, never pickles: messages are JSON, and pixels, over a socket pair (their form is in
worker.py).
"""

import json
import math
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock
from typing import Any, NoReturn

from pacs_agent.analyse.bundle import Bundle
from pacs_agent.analyse.finding import ImageOutcome
from pacs_agent.errors import BundleError, WorkerDiedError, WorkerUnavailableError
from pacs_agent.settings import Model

MAX_ANSWER_BYTES = 64 * 1024 * 1024
MAX_CAPTURE_SIDE = 4096  # pixels; twice what is ever asked for
NONSENSE = "gave an answer that cannot be understood"
EXIT_SECONDS = 10  # for a process that closed its pipe, or was killed, to be gone


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """An image to analyse.

    Attributes:
        key: comes back in the answer.
        path: DICOM Part 10, PNG or JPEG.
        body_part: one of the seven; None: not known, the ensemble's default weights are used.
    """

    key: str
    path: Path
    body_part: str | None


@dataclass(frozen=True, slots=True)
class ImageAnswer:
    """What the analysis process says of an image.

    Attributes:
        abnormal_probability: 0 to 1; None where it could not be read.
        member_probabilities: one for each network of the ensemble; empty where it could not be read.
        reason: why it could not be read, for a person.
        doubt: why its probability must not count, for a person.
        attention: the highest value of its heat map; None where it could not be read.
        is_unread: the reason is the disk's, which may give the file back another time.
    """

    key: str
    abnormal_probability: float | None
    member_probabilities: tuple[float, ...]
    reason: str | None
    doubt: str | None = None
    attention: float | None = None
    is_unread: bool = False

    def outcome(self, sop_instance_uid: str, series_instance_uid: str) -> ImageOutcome:
        """The answer as the finding takes it."""
        return ImageOutcome(
            sop_instance_uid,
            series_instance_uid,
            "failed" if self.abnormal_probability is None else "analysed",
            self.abnormal_probability,
            self.member_probabilities,
            self.reason,
            self.doubt,
            self.attention,
        )


@dataclass(frozen=True, slots=True)
class CaptureRequest:
    """An analysed image to be shown with its heat map.

    Attributes:
        path, body_part: as they were analysed.
        full_scale: the attention at the colour bar's upper end.
        title, lines, scale: the words, as overlay.Caption has them.
    """

    path: Path
    body_part: str | None
    full_scale: float
    title: str
    lines: tuple[str, ...]
    scale: tuple[str, str]


@dataclass(frozen=True, slots=True)
class CapturePicture:
    """A rendered capture: 8-bit RGB, by pixel."""

    rows: int
    columns: int
    rgb: bytes


class AnalysisProcess:
    """A supervised analysis process.

    The kernel kills the process when the *thread* that started it ends (PDEATHSIG is of the thread, prctl(2)): the one
    that called `start`, `ensure`, or the `analyse` that found it dead. So one thread should call them all and live as
    long as the process is wanted. `stop` may be called from any thread.

    Args:
        bundle: checked; the process refuses weights with another hash.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        batch_images: images of one request, which go through the network together.
        max_pixels: rows × columns allowed of one image.
        memory_limit_mb: of the process, beyond which an image or the process fails.
        timeout_s: for a start, and for the answer to one request.
        module: what is run in its place; tests have modules that misbehave.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str,
        batch_images: int,
        max_pixels: int,
        memory_limit_mb: int,
        timeout_s: float,
        module: str = "pacs_agent.analyse.worker",
    ) -> None:
        self._configuration = {
            "bundle": str(bundle.path),
            "weights_sha256": bundle.manifest.weights_sha256,
            "device": device,
            "batch_images": batch_images,
            "max_pixels": max_pixels,
            "memory_limit_mb": memory_limit_mb,
        }
        self._batch_images = batch_images
        self._timeout_s = timeout_s
        self._module = module
        self._conversation = Lock()  # one request at a time
        self._life = Lock()  # guards the three below; never held while waiting for an answer
        self._process: subprocess.Popen[bytes] | None = None
        self._device: str | None = None
        self._stopped = False
        self._pipe: Connection | None = None  # only ever used inside a conversation

    @classmethod
    def of(cls, bundle: Bundle, model: Model) -> "AnalysisProcess":
        """The process as section [model] of the settings wants it, not started."""
        return cls(
            bundle,
            device=model.device,
            batch_images=model.batch_images,
            max_pixels=model.max_megapixels * 1_000_000,
            memory_limit_mb=model.memory_limit_mb,
            timeout_s=model.timeout_seconds,
        )

    @property
    def pid(self) -> int | None:
        """The process's id; None while there is none alive."""
        with self._life:
            alive = self._process is not None and self._process.poll() is None
            return self._process.pid if alive and self._process else None

    @property
    def device(self) -> str | None:
        """The device that the process chose (`cpu`, `cuda:0`); None before it was ready once."""
        return self._device

    def start(self) -> None:
        """Start the process unless it is alive, and wait until it is ready. Undoes `stop`.

        Raises:
            BundleError: it says that the bundle or the device cannot be used.
            WorkerUnavailableError: it died or was silent for *timeout_s*.
        """
        with self._life:
            self._stopped = False
        self.ensure()

    def ensure(self) -> None:
        """Start the process again where it died; raises as `start` does, and when it was stopped."""
        with self._conversation:
            self._ensure()

    def analyse(self, images: Sequence[ImageRequest]) -> list[ImageAnswer]:
        """Have images analysed, *batch_images* a request, each with a time limit of its own.

        Returns:
            One answer for each image, in their order.

        Raises:
            WorkerDiedError: it died, was stopped, was silent for *timeout_s* or answered nonsense; nothing is known of
                these images then. It is gone, and the next call starts another.
            WorkerUnavailableError: its device has not memory enough, whatever the image; it is alive.
            WorkerUnavailableError, BundleError: it was gone and cannot be started again; no image was looked at.
        """
        with self._conversation:
            answers: list[ImageAnswer] = []
            for start in range(0, len(images), self._batch_images):
                answers += self._analyse(images[start : start + self._batch_images])
            return answers

    def _analyse(self, images: Sequence[ImageRequest]) -> list[ImageAnswer]:
        pipe = self._ensure()
        request = [{"key": image.key, "path": str(image.path), "body_part": image.body_part} for image in images]
        answer = self._exchange(pipe, {"images": request})
        try:
            return _read_answers(answer, images)
        except (KeyError, TypeError, ValueError):
            self._fail(NONSENSE)

    def capture(self, request: CaptureRequest) -> CapturePicture | str:
        """Have the heat map of an image shown, soon after it was analysed: what was decoded then is at hand.

        Returns:
            The picture, or the reason why there is none, for a person.

        Raises:
            WorkerDiedError: it died of it, was silent for *timeout_s* or answered nonsense.
            WorkerUnavailableError, BundleError: it was stopped, or was gone and cannot be started again, or its device
                has not memory enough.
        """
        with self._conversation:
            pipe = self._ensure()
            try:
                answer = self._exchange(pipe, {"capture": {**asdict(request), "path": str(request.path)}})
                if isinstance(reason := answer.get("reason"), str):
                    return reason
                rows, columns = answer.get("rows"), answer.get("columns")
                if not (isinstance(rows, int) and isinstance(columns, int)):
                    self._fail(NONSENSE)
                if not (0 < rows <= MAX_CAPTURE_SIDE and 0 < columns <= MAX_CAPTURE_SIDE):
                    self._fail(NONSENSE)
                rgb = self._receive(pipe, rows * columns * 3)
                if len(rgb) != rows * columns * 3:
                    self._fail(NONSENSE)
            except WorkerDiedError as error:
                if self._stopped:  # says nothing of this image
                    raise WorkerUnavailableError(str(error)) from error
                raise
            return CapturePicture(rows, columns, rgb)

    def stop(self) -> None:
        """Kill the process: an `analyse` that waits raises, and so do later ones until `start`."""
        with self._life:
            self._stopped = True
            if self._process is not None:
                self._process.kill()
                with suppress(subprocess.TimeoutExpired):  # a driver may hold it; it is dead to us
                    self._process.wait(EXIT_SECONDS)

    def _ensure(self) -> Connection:
        """The pipe to a process that is alive and ready."""
        if self._pipe is not None and self.pid is not None:
            return self._pipe
        self._close_pipe()
        try:
            pipe = self._spawn()
            answer = self._exchange(pipe, {**self._configuration, "parent_pid": os.getpid()})
            if "error" not in answer and answer.get("ready") is not True:
                self._fail(NONSENSE)
        except WorkerUnavailableError:  # it says so and goes; until it is gone it would pass for one that is ready
            self._end()
            raise
        except WorkerDiedError as error:
            raise WorkerUnavailableError(str(error)) from error
        if "error" in answer:
            self._end()
            raise BundleError(str(answer["error"]))
        self._device = str(answer["device"])
        return pipe

    def _spawn(self) -> Connection:
        try:
            return self._start_process()
        except OSError as error:
            raise WorkerDiedError(f"the analysis process cannot be started: {error.strerror}") from error

    def _start_process(self) -> Connection:
        ours, theirs = socket.socketpair()
        with theirs:
            # A process that is stopped in the middle of a message must not hold us either.
            timeout = struct.pack("ll", int(self._timeout_s), int(self._timeout_s % 1 * 1_000_000))
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
            self._pipe = Connection(ours.detach())
            with self._life:
                if self._stopped:
                    raise WorkerDiedError("the analysis process was stopped")
                self._process = subprocess.Popen(  # noqa: S603 - our own interpreter, no shell
                    # -P: nothing is imported from the working directory
                    [sys.executable, "-P", "-m", self._module, str(theirs.fileno())],
                    # torch's threads sleep while they wait for one another: spinning, where the listener wants a core
                    # too, they take several times the processor time, and no less time by the clock
                    env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ},
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=2,  # what a library prints is not a result
                    process_group=0,  # a terminal's Ctrl-C is for the parent
                )
        return self._pipe

    def _exchange(self, pipe: Connection, message: dict[str, Any]) -> dict[str, Any]:
        """Send a message and wait for its answer."""
        try:
            answer = json.loads(self._receive(pipe, MAX_ANSWER_BYTES, json.dumps(message).encode()))
        except ValueError:
            self._fail(NONSENSE)
        if not isinstance(answer, dict):
            self._fail(NONSENSE)
        if "exhausted" in answer:
            raise WorkerUnavailableError(str(answer["exhausted"]))
        return answer

    def _receive(self, pipe: Connection, limit: int, message: bytes = b"") -> bytes:
        """Send *message*, where there is one, and wait for bytes, at most *limit*."""
        try:
            if message:
                pipe.send_bytes(message)
            return pipe.recv_bytes(limit)
        except BlockingIOError:  # SO_RCVTIMEO or SO_SNDTIMEO ran out
            self._fail(f"did not answer in {self._timeout_s:g} s")
        except (EOFError, OSError):
            self._fail(None)

    def _fail(self, reason: str | None) -> NoReturn:
        """Make sure that the process is gone, and say why; None: by how it ended."""
        returncode = self._end(kill=reason is not None)
        if self._stopped:
            raise WorkerDiedError("the analysis process was stopped")
        raise WorkerDiedError(f"the analysis process {reason or _end_in_words(returncode)}")

    def _end(self, *, kill: bool = True) -> int:
        """Close the pipe, see the process gone, and return how it ended."""
        self._close_pipe()
        with self._life:
            process, self._process = self._process, None
        if process is None:
            return 0
        if not kill:  # it closed its end: it is on its way out, and how it ends is worth knowing
            with suppress(subprocess.TimeoutExpired):
                return process.wait(EXIT_SECONDS)
        process.kill()
        with suppress(subprocess.TimeoutExpired):
            return process.wait(EXIT_SECONDS)
        return -signal.SIGKILL

    def _close_pipe(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None


def _read_answers(answer: dict[str, Any], images: Sequence[ImageRequest]) -> list[ImageAnswer]:
    """The answers of a message; ValueError, KeyError or TypeError where they are not to these images.

    The decoders run on hostile input beyond this pipe, so what comes from there is not taken on trust.
    """
    answers = [
        ImageAnswer(
            key=image.key,
            abnormal_probability=None if item["reason"] is not None else _probability(item["abnormal_probability"]),
            member_probabilities=tuple(map(_probability, item["member_probabilities"])),
            reason=None if item["reason"] is None else str(item["reason"]),
            doubt=None if item.get("doubt") is None else str(item["doubt"]),
            attention=None if item.get("attention") is None else _attention(item["attention"]),
            is_unread=item.get("unread") is True,
        )
        for image, item in zip(images, answer["images"], strict=True)
        if item["key"] == image.key
    ]
    if len(answers) != len(images):
        raise ValueError("answers do not belong to the request")
    return answers


def _probability(value: Any) -> float:
    number = float(value)
    if not (math.isfinite(number) and 0 <= number <= 1):
        raise ValueError("not a probability")
    return number


def _attention(value: Any) -> float:
    number = float(value)
    if not (math.isfinite(number) and number >= 0):
        raise ValueError("not the height of a map")
    return number


def _end_in_words(returncode: int) -> str:
    if returncode >= 0:
        return f"ended with exit status {returncode}"
    try:
        return f"was killed by signal {-returncode} ({signal.Signals(-returncode).name})"
    except ValueError:
        return f"was killed by signal {-returncode}"
