"""The analysis process: `python -m pacs_agent.analyse.worker FD`.

Enters: JSON messages on the inherited socket FD, naming files. Leaves: JSON answers with probabilities, or a reason for
each picture that could not be read; of single pictures the capture, as pixels. A picture never ends the process by an
exception; the network's failure ends it on purpose, so that the supervisor starts a fresh one. Never opens a socket,
never writes a file or a row, never outlives its parent.

Messages, each one JSON object:
    configuration  {bundle, weights_sha256, device, batch_images, max_pixels, memory_limit_mb, parent_pid}
                   → {"ready": true, "device": …} or {"error": line}, or {"exhausted": line}
    request        {"images": [{key, path, body_part}, …]}
                   → {"images": [{key, abnormal_probability, member_probabilities, reason, unread, doubt, attention},
                   …]}, same order; or {"exhausted": line}: the device has not memory enough, which is no image's fault
    request        {"capture": {path, body_part, full_scale, title, lines, scale}}
                   → {"rows", "columns"} and then rows × columns × 3 bytes, or {"reason": line}, or as above
"""

import ctypes
import json
import os
import resource
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

from pacs_agent.analyse.bundle import load_bundle
from pacs_agent.analyse.ensemble import Ensemble, configure_torch
from pacs_agent.analyse.workbench import Workbench
from pacs_agent.errors import BundleError, DeviceExhaustedError, PacsAgentError
from pacs_agent.faults import crash_point

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
        except DeviceExhaustedError as error:
            _send(pipe, {"exhausted": str(error)})
            return
        _send(pipe, {"ready": True, "device": str(ensemble.device)})
        with ThreadPoolExecutor(DECODE_THREADS, "decode") as decoders:
            bench = Workbench(ensemble, decoders, configuration["batch_images"], configuration["max_pixels"])
            while True:
                request = json.loads(pipe.recv_bytes())
                try:
                    _answer(pipe, bench, request)
                except DeviceExhaustedError as error:
                    _send(pipe, {"exhausted": str(error)})


def _answer(pipe: Connection, bench: Workbench, request: dict[str, Any]) -> None:
    if "images" in request:
        answers = bench.analyse(request["images"])
        crash_point("images answered")
        _send(pipe, {"images": answers})
        return
    capture = bench.capture(**request["capture"])
    if isinstance(capture, str):
        _send(pipe, {"reason": capture})
    else:
        _send(pipe, {"rows": capture.shape[0], "columns": capture.shape[1]})
        pipe.send_bytes(capture.tobytes())


def _load(configuration: dict[str, Any]) -> Ensemble:
    """The ensemble on its device.

    Raises:
        BundleError: it cannot be used, or its weights are not those that the parent checked.
        DeviceExhaustedError: they do not fit the device's memory.
    """
    bundle = load_bundle(configuration["bundle"])
    if bundle.manifest.weights_sha256 != configuration["weights_sha256"]:
        raise BundleError(f"bundle {bundle.path}: its weights were changed since it was checked")
    configure_torch()
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
    # Of other errors the kind alone: they quote what they could not read.
    lines = str(error).strip().splitlines() if isinstance(error, (PacsAgentError, ImportError, OSError)) else []
    sys.stderr.write(f"analysis process: {': '.join([kind.__name__, *lines[:1]])[:500]}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
