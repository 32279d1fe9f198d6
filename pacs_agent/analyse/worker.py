"""The analysis process: `python -m pacs_agent.analyse.worker FD`.

Enters: JSON messages on the inherited socket FD, naming files. Leaves: JSON answers with probabilities, or a reason for
each picture that could not be read. A picture never ends the process by an exception; the network's failure ends it on
purpose, so that the supervisor starts a fresh one. Never opens a socket, never writes a picture or a row, never
outlives its parent.

Messages, each one JSON object:
    configuration  {bundle, weights_sha256, device, batch_images, max_pixels, memory_limit_mb, parent_pid}
                   → {"ready": true, "device": …} or {"error": line}
    request        {"images": [{key, path, body_part}, …]}
                   → {"images": [{key, abnormal_probability, member_probabilities, reason, doubt}, …]}, same order
"""

import ctypes
import json
import math
import os
import resource
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pacs_agent.analyse.bundle import load_bundle
from pacs_agent.analyse.ensemble import Ensemble, use_available_cores
from pacs_agent.analyse.pixels import InputSpec, model_input, read_picture
from pacs_agent.errors import BundleError, PixelsError

PR_SET_PDEATHSIG = 1  # prctl(2)
DECODE_THREADS = 2  # decoders let go of the interpreter's lock; more would only hold more full-size pictures
OOM_SCORE = 500  # proc(5): when memory runs out, this process goes before the listener
NICENESS = 5


def main(descriptor: int) -> None:
    """Serve the parent at the other end of *descriptor* until it closes it or dies."""
    _guard()
    with Connection(descriptor) as pipe, suppress(EOFError, ConnectionError):
        configuration = json.loads(pipe.recv_bytes())
        if os.getppid() != configuration["parent_pid"]:
            return  # it died before the signal was armed
        _limit_memory(configuration["memory_limit_mb"])
        try:
            ensemble = _load(configuration)
        except BundleError as error:
            _send(pipe, {"error": str(error)})
            return
        _send(pipe, {"ready": True, "device": str(ensemble.device)})
        with ThreadPoolExecutor(DECODE_THREADS, "decode") as decoders:
            while True:
                images = json.loads(pipe.recv_bytes())["images"]
                answers = _analyse(
                    ensemble, images, decoders, configuration["batch_images"], configuration["max_pixels"]
                )
                _send(pipe, {"images": answers})


def _analyse(
    ensemble: Ensemble,
    images: Sequence[dict[str, Any]],
    decoders: ThreadPoolExecutor,
    batch_images: int,
    max_pixels: int,
) -> list[dict[str, Any]]:
    """One answer for each image: decoded side by side, then all that could be read in one batch."""
    spec = ensemble.bundle.manifest.input
    decoded = list(decoders.map(lambda image: _decode(Path(image["path"]), spec, max_pixels), images))
    readable = [index for index, picture in enumerate(decoded) if not isinstance(picture, str)]
    answers: list[dict[str, Any]] = [
        {
            "key": image["key"],
            "abnormal_probability": None,
            "member_probabilities": [],
            "reason": picture if isinstance(picture, str) else None,
            "doubt": None,
        }
        for image, picture in zip(images, decoded, strict=True)
    ]
    if not readable:
        return answers
    inputs = np.stack([picture for picture in decoded if not isinstance(picture, str)])
    body_parts = [images[index]["body_part"] for index in readable]
    found = ensemble.examine(inputs, body_parts, batch_images)
    for index, probability, of_members, verdict in zip(
        readable, found.probabilities.tolist(), found.member_probabilities.tolist(), found.verdicts, strict=True
    ):
        if all(map(math.isfinite, (probability, *of_members))):
            answers[index].update(
                abnormal_probability=probability,
                member_probabilities=of_members,
                doubt=verdict.reason if verdict else None,
            )
        else:  # NaN is not greater than any threshold: it would read as normal
            answers[index]["reason"] = "the network gave no probability"
    return answers


def _decode(path: Path, spec: InputSpec, max_pixels: int) -> NDArray[np.uint8] | str:
    """The network's input, or the reason why there is none."""
    try:
        picture = read_picture(path, max_pixels=max_pixels, longest_side=spec.source_longest_side)
        return model_input(picture, spec)
    except PixelsError as error:
        return str(error)
    except MemoryError:
        return "could not be read: it needs more memory than the analysis process may use"
    except Exception as error:  # noqa: BLE001 - a picture may break a decoder in any way; it must not cost its neighbours
        lines = str(error).strip().splitlines() or [""]
        return f"could not be read: {type(error).__name__}: {lines[0][:200]}"


def _load(configuration: dict[str, Any]) -> Ensemble:
    """The ensemble on its device.

    Raises:
        BundleError: it cannot be used, or its weights are not those that the parent checked.
    """
    bundle = load_bundle(configuration["bundle"])
    if bundle.manifest.weights_sha256 != configuration["weights_sha256"]:
        raise BundleError(f"bundle {bundle.path}: its weights were changed since it was checked")
    use_available_cores()
    return Ensemble(bundle, configuration["device"])


def _guard() -> None:
    """End with the parent, leave its signals to it, and give way to the listener."""
    # The signal comes when the parent's thread that started us ends; the pipe's end is the second rope.
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    sys.excepthook = _one_line
    os.nice(NICENESS)
    with suppress(OSError):  # a container may forbid it
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))


def _limit_memory(limit_mb: int) -> None:
    # RLIMIT_DATA counts what is really writable; RLIMIT_AS would count the address space that CUDA reserves.
    limit = limit_mb * 1024 * 1024
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _send(pipe: Connection, message: dict[str, Any]) -> None:
    pipe.send_bytes(json.dumps(message, allow_nan=False).encode())


def _one_line(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
    lines = str(error).strip().splitlines() or [""]
    sys.stderr.write(f"analysis process: {kind.__name__}: {lines[0][:500]}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
