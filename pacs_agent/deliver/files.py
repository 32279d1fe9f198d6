"""C-STORE of files as they are: for `pacs-agent send` and the demo's modality."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pynetdicom import AE
from pynetdicom.association import Association

from pacs_agent.deliver.sender import STORED
from pacs_agent.errors import PacsAgentError

_PEER = re.compile(r"^(?P<ae>[^@\\]{1,16})@(?P<host>\[[0-9A-Fa-f:.]+\]|[^@:\[\]]+):(?P<port>\d{1,5})$")
MAX_CONTEXTS = 128  # PS3.8 9.3.2.2: odd identifiers of one byte


@dataclass(frozen=True, slots=True)
class Peer:
    """A storage SCP."""

    ae_title: str
    host: str
    port: int


def parse_peer(text: str) -> Peer:
    """Read `AE@HOST:PORT`.

    Raises:
        PacsAgentError: it is not of that form.
    """
    match = _PEER.match(text)
    if not match or not 0 < int(match["port"]) < 65536:
        raise PacsAgentError(f"{text!r} is not AE@HOST:PORT")
    return Peer(match["ae"], match["host"].strip("[]"), int(match["port"]))


def send_files(paths: Sequence[Path], peer: Peer, calling_ae_title: str) -> Iterator[tuple[Path, int, str | None]]:
    """Send each file, each in its own transfer syntax.

    Yields:
        The file, how many there are, and None or why it was not stored.

    Raises:
        PacsAgentError: a path does not exist, or the peer cannot be reached.
    """
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise PacsAgentError(f"{path}: there is no such file or folder")
        files += sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    kinds: dict[Path, tuple[str, str]] = {}
    for file in files:
        try:
            meta = dcmread(file, stop_before_pixels=True, specific_tags=["SOPClassUID"]).file_meta
            kinds[file] = (str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID))
        except (InvalidDicomError, OSError, AttributeError, EOFError):
            yield file, len(files), "not a DICOM file"
    wanted = sorted(set(kinds.values()))
    for start in range(0, len(wanted), MAX_CONTEXTS):
        some = wanted[start : start + MAX_CONTEXTS]
        assoc = _associate(peer, calling_ae_title, some)
        try:
            for file in (each for each, kind in kinds.items() if kind in some):
                yield file, len(files), _send_one(assoc, dcmread(file))
        finally:
            if assoc.is_established:
                assoc.release()


def _associate(peer: Peer, calling_ae_title: str, kinds: Sequence[tuple[str, str]]) -> Association:
    ae = AE(ae_title=calling_ae_title)
    ae.maximum_pdu_size = 0
    for sop_class_uid, transfer_syntax_uid in kinds:
        ae.add_requested_context(sop_class_uid, transfer_syntax_uid)
    assoc = ae.associate(peer.host, peer.port, ae_title=peer.ae_title)
    if not assoc.is_established:
        how = "rejected the association" if assoc.is_rejected else "cannot be reached"
        raise PacsAgentError(f"{peer.ae_title}@{peer.host}:{peer.port} {how}")
    return assoc


def _send_one(assoc: Association, ds: FileDataset) -> str | None:
    if not assoc.is_established:
        return "the association has ended"
    try:
        answer = assoc.send_c_store(ds)
    except (ValueError, RuntimeError) as error:
        return str(error).splitlines()[0]
    status = answer.get("Status")
    if status is None:
        return "the association ended without an answer"
    comment = str(answer.get("ErrorComment", ""))
    return None if status in STORED else f"status {status:04X} {comment}".strip()
