"""What `check` looks at.

Enters: the settings. Leaves: one `Check` each, never an exception. Opens associations to the destinations and sends
nothing over them but C-ECHO; makes neither file nor folder.
"""

import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydicom.uid import UID
from pynetdicom.sop_class import StorageCommitmentPushModel
from sqlalchemy.exc import DBAPIError

from pacs_agent.analyse.bundle import load_bundle, load_further
from pacs_agent.cli.condition import free_mb
from pacs_agent.deliver.association import accepts_nothing, association, client_tls, echo, why_not_established
from pacs_agent.deliver.folder import look
from pacs_agent.errors import OutOfResourcesError, PacsAgentError
from pacs_agent.presence import running_state
from pacs_agent.receive.listener import server_tls
from pacs_agent.record.store import Store
from pacs_agent.report.capture import CAPTURE_CLASS
from pacs_agent.report.rejection import NOTE_CLASS
from pacs_agent.report.sr import SR_CLASSES
from pacs_agent.settings import Destination, Settings, Tls


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, and what was found."""

    what: str
    ok: bool
    detail: str


def run_checks(settings: Settings, file: Path | None) -> list[Check]:
    """Look at everything; the settings were read already, from *file* or, where it is None, are the defaults."""
    ours = settings.listener.ae_title
    checks = [
        Check("settings", True, str(file or "the defaults, there is no settings file")),
        _attempt("database", partial(_database, settings)),
        _attempt("bundle", partial(_bundle, settings)),
        _attempt("disk", partial(_disk, settings)),
        _attempt("port", partial(_port, settings)),
    ]
    if settings.model.also:
        checks.append(_attempt("further bundles", partial(_further, settings)))
    if settings.listener.tls:
        checks.append(_attempt("listener: TLS", partial(_tls, settings.listener.tls, server_tls)))
    for target in settings.destinations:
        name = f"destination {target.name}"
        if target.tls:
            checks.append(_attempt(f"{name}: TLS", partial(_tls, target.tls, client_tls)))
            if checks[-1].ok:
                checks.append(_attempt(f"{name}: TLS handshake", partial(_handshake, target, target.tls)))
        if target.folder:
            checks.append(_attempt(f"{name}: folder", partial(look, target.folder)))
            continue
        checks.append(_attempt(f"{name}: C-ECHO", partial(_echo, target, ours)))
        checks += [
            _attempt(f"{name}: {kind}", partial(_accepts, target, ours, _sop_class(target, kind), _REMEDIES.get(kind)))
            for kind in target.objects or settings.report.objects
        ]
        checks.append(Check(f"{name}: rejection notes", True, _notes(target, ours)))
        if target.storage_commitment:
            asked = partial(_accepts, target, ours, StorageCommitmentPushModel)
            checks.append(_attempt(f"{name}: storage commitment", asked))
    if not settings.destination:
        checks.append(Check("destinations", True, "none: objects are made and held"))
    return checks


def _attempt(what: str, look: Callable[[], str]) -> Check:
    try:
        return Check(what, True, look())
    except PacsAgentError as error:
        return Check(what, False, str(error))
    except DBAPIError as error:
        return Check(what, False, str(error.orig))
    except OSError as error:
        return Check(what, False, ": ".join(str(part) for part in (error.filename, error.strerror or error) if part))


def _database(settings: Settings) -> str:
    if not settings.database_path.is_file():
        return f"{settings.database_path} will be made"
    Store.attach(settings.database_path).close()
    return str(settings.database_path)


def _bundle(settings: Settings) -> str:
    manifest = load_bundle(settings.model.bundle).manifest
    state = "trained" if manifest.trained else "not trained: every finding is undetermined"
    return f"{manifest.name} {manifest.version}, hash holds, {state}"


def _further(settings: Settings) -> str:
    found = load_further(settings.model.also, load_bundle(settings.model.bundle))
    return "hash holds: " + ", ".join(f"{each.manifest.name} {each.manifest.version}" for each in found)


def _disk(settings: Settings) -> str:
    free, folder = free_mb(settings)
    if free < settings.agent.min_free_mb:
        raise OutOfResourcesError(f"{free} MB free at {folder}, the floor is {settings.agent.min_free_mb} MB")
    return f"{free} MB free at {folder}, the floor is {settings.agent.min_free_mb} MB"


def _port(settings: Settings) -> str:
    host, port = settings.listener.host, settings.listener.port
    if state := running_state(settings.data_dir):
        return f"the daemon listens on {state['host']}:{state['port']}"
    try:
        family = socket.getaddrinfo(host, None)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise PacsAgentError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    return f"{host}:{port} is free" if port else f"{host}, any free port"


def _tls(tls: Tls, load: Callable[[Tls], object]) -> str:
    files = (tls.certificate, tls.key, tls.ca)
    for path in files:
        path.open("rb").close()  # ssl's own error would not say which
    try:
        load(tls)
    except ssl.SSLError as error:
        raise PacsAgentError(f"{', '.join(map(str, files))}: {error.reason or error}") from error
    return f"{tls.certificate} with its key, and {tls.ca}"


def _handshake(target: Destination, tls: Tls) -> str:
    """What an association does not tell: why the two do not trust each other."""
    try:
        with (
            socket.create_connection((target.host, target.port), target.timeout_seconds) as plain,
            client_tls(tls).wrap_socket(plain, server_hostname=target.host) as secure,
        ):
            return f"{target.host}:{target.port} is whom {tls.ca} signed, {secure.version()}"
    except ssl.SSLCertVerificationError as error:
        raise PacsAgentError(f"{target.host}:{target.port}: its certificate: {error.verify_message}") from error
    except ssl.SSLError as error:
        raise PacsAgentError(f"{target.host}:{target.port}: {error.reason or error}") from error
    except OSError as error:
        raise PacsAgentError(f"{target.host}:{target.port}: {error.strerror or error}") from error


def _echo(target: Destination, ours: str) -> str:
    if problem := echo(target, ours):
        raise PacsAgentError(f"{target.address}: {problem}")
    return f"{target.address} answers C-ECHO"


def _sop_class(target: Destination, kind: str) -> str:
    return {"sr": SR_CLASSES[target.sr_class], "capture": CAPTURE_CLASS}[kind]


# Where a PACS answers and does not take the class: what in the settings goes without it.
_REMEDIES = {"capture": 'objects = ["sr"] at this destination sends no heat maps there'}


def _notes(target: Destination, ours: str) -> str:
    """Whether it takes a rejection note; no fault where it does not, for none is sent unless a person asks for it."""
    try:
        return _accepts(target, ours, NOTE_CLASS)
    except (PacsAgentError, OSError) as error:
        return f"{error}; only `withdraw --reject` needs it"


def _accepts(target: Destination, ours: str, sop_class_uid: str, remedy: str | None = None) -> str:
    """Offer one class, as it would be used: an association of its own names the culprit."""
    name = UID(sop_class_uid).name
    assoc = association(target, ours, [sop_class_uid])
    if not assoc.is_established:
        advice = f"; {remedy}" if remedy and accepts_nothing(assoc) else ""
        raise PacsAgentError(f"{name}: {why_not_established(assoc)}{advice}")
    assoc.release()
    return f"{name} is accepted"
