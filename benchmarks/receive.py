"""How fast instances are received: the daemon beside Orthanc, DCMTK storescp and an SCP that throws everything away.

Enters: nothing but programs (DCMTK's dcmsend and storescp, Orthanc). Leaves: images a second for every cell, as ratios,
and which of the figures to reach are met. Synthetic data, fresh UIDs in every cell; every process is ended.
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from shutil import rmtree

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
)
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification

MAX_PDU = 131_072
ASSOCIATIONS = (1, 4, 8)
TARGETS = ("daemon", "discard", "storescp", "orthanc")
AE_TITLE = "RECEIVER"
# Root, cell, kind of UID, number; the cell is rewritten in place, so its width never changes.
UID_PREFIX = "1.2.826.0.1.3680043.8.498.77."
READY_S, SEND_S, STOP_S = 120, 600, 60


@dataclass(frozen=True)
class Size:
    name: str
    count: int
    per_study: int
    side: int  # pixels, rows and columns alike, two bytes each
    sop_class: str
    modality: str


SIZES = (
    Size("10 MB", 60, 2, 2236, DigitalXRayImageStorageForPresentation, "DX"),
    Size("0.4 MB", 400, 4, 448, ComputedRadiographyImageStorage, "CR"),
)


class DataSet:
    """The files of one size, and their UIDs, which every cell makes new."""

    def __init__(self, folder: Path, size: Size) -> None:
        self.size = size
        self._cell = 0
        self._files: list[tuple[Path, list[int]]] = []
        folder.mkdir(parents=True)
        noise = np.random.default_rng(1)
        marker = self._uid_cell().encode()
        for number in range(size.count):
            path = folder / f"{number:04d}.dcm"
            _radiograph(size, number, self._uid_cell(), noise).save_as(path, enforce_file_format=True)
            head = path.read_bytes()[:8192]
            at = [index for index in range(len(head)) if head.startswith(marker, index)]
            self._files.append((path, at))

    def _uid_cell(self) -> str:
        return f"{UID_PREFIX}{SIZES.index(self.size) + 1}{self._cell:08d}."

    def renew(self) -> list[Path]:
        """Give every file UIDs that no receiver has seen; the files in the order of sending."""
        self._cell += 1
        marker = self._uid_cell().encode()
        for path, offsets in self._files:
            with path.open("r+b") as file:
                for offset in offsets:
                    file.seek(offset)
                    file.write(marker)
        return [path for path, _ in self._files]


def _radiograph(size: Size, number: int, prefix: str, noise: np.random.Generator) -> Dataset:
    study = number // size.per_study + 1
    ds = Dataset()
    ds.SOPClassUID = size.sop_class
    ds.SOPInstanceUID = f"{prefix}3.{number + 1}"
    ds.StudyInstanceUID = f"{prefix}1.{study}"
    ds.SeriesInstanceUID = f"{prefix}2.{study}"
    ds.StudyDate = ds.ContentDate = "20240101"
    ds.StudyTime = ds.ContentTime = "120000"
    ds.AccessionNumber = f"B{study}"
    ds.StudyID = str(study)
    ds.SeriesNumber, ds.InstanceNumber = 1, number + 1
    ds.Modality = size.modality
    ds.PatientName = f"Phantom^{study}"
    ds.PatientID = f"BENCH{study}"
    ds.PatientBirthDate, ds.PatientSex = "19700101", "O"
    ds.Manufacturer, ds.StationName = "Phantom", "BENCH"
    ds.BodyPartExamined, ds.ImageLaterality, ds.ViewPosition = "HAND", "R", "PA"
    if size.modality == "DX":
        ds.PresentationIntentType = "FOR PRESENTATION"
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.Rows = ds.Columns = size.side
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelSpacing = ds.ImagerPixelSpacing = [0.15, 0.15]
    ds.PixelData = noise.integers(0, 4096, (size.side, size.side), dtype=np.uint16).tobytes()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


# The receivers, each in its own process group and its own folder, ended by the context's end.


@contextmanager
def receiver(target: str, folder: Path) -> Iterator[tuple[int, int]]:
    """A receiver that answers C-ECHO: its port and the process id of what listens."""
    folder.mkdir(parents=True)
    port = free_port()
    log_path = folder / "log.txt"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            _command(target, port, folder), stdout=log, stderr=log, cwd=folder, start_new_session=True
        )
    try:
        deadline = time.monotonic() + READY_S
        while not answers_echo(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{target} did not get ready:\n{log_path.read_text(errors='replace')[-2000:]}")
            time.sleep(0.2)
        yield port, process.pid
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            print(f"{target} did not end within {STOP_S} s of SIGTERM: killed", file=sys.stderr)
        finally:
            _kill_group(process.pid)  # storescp's children, and whatever did not end
            process.wait(STOP_S)
            rmtree(folder)


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _command(target: str, port: int, folder: Path) -> list[str]:
    if target == "discard":
        return [sys.executable, str(Path(__file__).resolve()), "--discard", str(port)]
    if target == "storescp":
        # --fork: one association after the other else.
        return ["/usr/bin/storescp", "--fork", "-aet", AE_TITLE, "-pdu", str(MAX_PDU), "-od", str(folder), str(port)]
    if target == "orthanc":
        config = folder / "orthanc.json"
        config.write_text(
            json.dumps(
                {
                    "StorageDirectory": str(folder / "storage"),
                    "IndexDirectory": str(folder / "storage"),
                    "Plugins": [],
                    "DicomAet": AE_TITLE,
                    "DicomPort": port,
                    "HttpPort": free_port(),
                    "AuthenticationEnabled": False,
                    "MaximumPduLength": MAX_PDU,
                }
            )
        )
        return ["/usr/sbin/Orthanc", str(config)]
    config = folder / "pacs-agent.toml"
    # Nothing is complete before the end, so that nothing is analysed meanwhile.
    config.write_text(
        f'[agent]\ndata_dir = "{folder / "data"}"\n'
        f'[listener]\nae_title = "{AE_TITLE}"\nport = {port}\nmax_pdu_bytes = {MAX_PDU}\n'
        "[study]\nquiet_seconds = 86400\nmax_wait_seconds = 86400\n"
    )
    return [sys.executable, "-m", "pacs_agent", "serve", "--config", str(config)]


def discard(port: int) -> None:
    """An SCP that answers success and keeps nothing: what pynetdicom itself can do."""
    ae = AE(ae_title=AE_TITLE)
    ae.maximum_pdu_size = MAX_PDU
    ae.maximum_associations = 64
    ae.supported_contexts = AllStoragePresentationContexts
    ae.add_supported_context(Verification)
    ae.start_server(("127.0.0.1", port), evt_handlers=[(evt.EVT_C_STORE, lambda _event: 0x0000)])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers_echo(port: int) -> bool:
    done = subprocess.run(
        ["/usr/bin/echoscu", "-to", "2", "-ta", "2", "-td", "2", "-aec", AE_TITLE, "127.0.0.1", str(port)],
        capture_output=True,
        check=False,
        timeout=10,
    )
    return done.returncode == 0


def send(files: list[Path], associations: int, port: int, folder: Path) -> float:
    """Send from that many processes at once; images a second from the first start to the last end."""
    os.sync()  # what earlier cells left to write is not this one's time
    chunks = np.array_split(np.array(files, dtype=object), associations)
    reports = [folder / f"report-{number}.txt" for number in range(associations)]
    senders: list[subprocess.Popen[bytes]] = []
    start = time.perf_counter()
    try:
        for chunk, report in zip(chunks, reports, strict=True):
            command = ["/usr/bin/dcmsend", "-q", "--max-pdu", str(MAX_PDU), "--max-send-pdu", str(MAX_PDU)]
            command += ["-aec", AE_TITLE, "-aet", "SENDER", "+crf", str(report), "127.0.0.1", str(port)]
            senders.append(subprocess.Popen([*command, *map(str, chunk)], start_new_session=True))
        for sender in senders:
            sender.wait(max(0.1, SEND_S - (time.perf_counter() - start)))
        seconds = time.perf_counter() - start
    finally:
        for sender in senders:
            if sender.poll() is None:
                _kill_group(sender.pid)
                sender.wait(STOP_S)
    stored = sum(_acknowledged(report) for report in reports)
    if stored != len(files) or any(sender.returncode for sender in senders):
        raise SystemExit(f"{stored} of {len(files)} instances were acknowledged")
    return len(files) / seconds


def _acknowledged(report: Path) -> int:
    lines = report.read_text().splitlines()
    report.unlink()
    return sum("with status SUCCESS" in line and int(line.rsplit(":", 1)[1]) for line in lines)


def peak_rss_mb(pid: int) -> float:
    """VmHWM of one process, MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("no VmHWM: this needs Linux")


def disk_of(folder: Path) -> str:
    """Device, file system and options that the receivers write to."""
    found = subprocess.run(
        ["findmnt", "-n", "-o", "SOURCE,FSTYPE,OPTIONS", "-T", str(folder)], capture_output=True, text=True, check=False
    )
    space = os.statvfs(folder)
    return f"{' '.join(found.stdout.split())}; {space.f_bavail * space.f_frsize >> 30} GiB free"


def measure(
    targets: tuple[str, ...], repeat: int, work: Path
) -> tuple[dict[tuple[str, int, str], list[float]], dict[str, float]]:
    """Rates by size, associations and target; peak RSS by target (the listening process's)."""
    sets = [DataSet(work / "files" / str(number), size) for number, size in enumerate(SIZES)]
    rates: dict[tuple[str, int, str], list[float]] = {}
    peaks: dict[str, float] = {}
    for turn in range(repeat):
        # Another order each time, so that nobody always comes first.
        for target in targets[turn % len(targets) :] + targets[: turn % len(targets)]:
            with receiver(target, work / target) as (port, pid):
                for data_set in sets:
                    for associations in ASSOCIATIONS:
                        rate = send(data_set.renew(), associations, port, work)
                        rates.setdefault((data_set.size.name, associations, target), []).append(rate)
                        print(f"{turn + 1}/{repeat} {target:9}{data_set.size.name:>7} × {associations}: {rate:8.1f}/s",
                              file=sys.stderr)  # fmt: skip
                peaks[target] = max(peaks.get(target, 0), peak_rss_mb(pid))
    return rates, peaks


def to_reach(medians: dict[tuple[str, int, str], float], peak: float | None) -> list[tuple[str, float, float, bool]]:
    """Figure, value, bound, met; only what was measured."""
    figures: list[tuple[str, float, float, bool]] = []

    def at_least(name: str, over: tuple[str, int, str], under: tuple[str, int, str], bound: float) -> None:
        if over in medians and under in medians:
            value = medians[over] / medians[under]
            figures.append((name, value, bound, value >= bound))

    for size, bound in (("10 MB", 1.8), ("0.4 MB", 6.0)):
        at_least(f"{size} × 1: daemon / Orthanc at least", (size, 1, "daemon"), (size, 1, "orthanc"), bound)
    for size in (each.name for each in SIZES):
        at_least(f"{size} × 4: daemon / discarding at least", (size, 4, "daemon"), (size, 4, "discard"), 0.7)
    for size in (each.name for each in SIZES):
        at_least(f"{size}: daemon × 8 / × 4 at least", (size, 8, "daemon"), (size, 4, "daemon"), 0.6)
    if peak is not None:
        figures.append(("peak RSS of the listening process, MB, below", peak, 300.0, peak < 300))
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeat", type=int, default=5, help="medians of so many runs (%(default)s)")
    parser.add_argument("--only", default=",".join(TARGETS), help="targets, by commas (%(default)s)")
    parser.add_argument("--work", type=Path, help="a folder on the disk to measure; a new one within is used, removed")
    parser.add_argument("--json", action="store_true", help="the result as JSON on stdout")
    parser.add_argument("--discard", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.discard:
        discard(arguments.discard)
        return 0
    targets = tuple(arguments.only.split(","))
    if unknown := set(targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    if arguments.repeat < 1:
        parser.error("--repeat is at least 1")
    # SIGTERM ends the receivers as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with ExitStack() as stack:
        work = Path(tempfile.mkdtemp(prefix="receive-", dir=arguments.work))
        stack.callback(rmtree, work, ignore_errors=True)
        disk = disk_of(work)
        rates, peaks = measure(targets, arguments.repeat, work)
    medians = {cell: statistics.median(values) for cell, values in rates.items()}
    figures = to_reach(medians, peaks.get("daemon"))
    if arguments.json:
        cells = [
            {"size": size, "associations": count, "target": target, "rates": values, "median": medians[cell]}
            for cell, values in rates.items()
            for size, count, target in [cell]
        ]
        names = ("figure", "value", "bound", "met")
        result = {
            "at": datetime.now(UTC).isoformat(),
            "disk": disk,
            "cpus": os.cpu_count(),
            "cells": cells,
            "peak_rss_mb": peaks,
            "to_reach": [dict(zip(names, row, strict=True)) for row in figures],
        }
        print(json.dumps(result, indent=1))
    else:
        _print(rates, medians, peaks, figures, disk)
    return 0 if all(row[3] for row in figures) else 1


def _print(
    rates: dict[tuple[str, int, str], list[float]],
    medians: dict[tuple[str, int, str], float],
    peaks: dict[str, float],
    figures: list[tuple[str, float, float, bool]],
    disk: str,
) -> None:
    print(f"disk: {disk}\nprocessors: {os.cpu_count()}\n")
    print(f"{'images/s':20}{'median':>9}{'÷Orthanc':>10}{'÷discard':>10}  runs")
    for (size, count, target), values in sorted(rates.items(), key=lambda item: (item[0][0] != "10 MB", item[0][1])):
        median = medians[size, count, target]
        ratios = "".join(
            f"{median / medians[size, count, other]:10.2f}" if (size, count, other) in medians else f"{'-':>10}"
            for other in ("orthanc", "discard")
        )
        runs = " ".join(f"{value:.1f}" for value in values)
        print(f"{size:>6} × {count} {target:9} {median:9.1f}{ratios}  {runs}")
    print("\npeak RSS of the listening process, MB: " + ", ".join(f"{name} {mb:.0f}" for name, mb in peaks.items()))
    print("\nto reach")
    for name, value, bound, met in figures:
        print(f"{name:45} {bound:6.1f}: {value:7.2f}  {'met' if met else 'NOT MET'}")
    if missed := Counter(row[3] for row in figures)[False]:
        print(f"{missed} not met")


if __name__ == "__main__":
    sys.exit(main())
