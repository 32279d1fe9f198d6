"""The log: a traceback without the values that an exception quotes."""

import json
import threading
import warnings
from collections.abc import Iterator

import pytest
import structlog
from highdicom.base import SOPClass
from pydicom.uid import Comprehensive3DSRStorage

from pacs_agent.errors import PacsAgentError
from pacs_agent.logs import configure

NAME = "DOE^JANE"  # in no line of code that a traceback shows


@pytest.fixture(autouse=True)
def _defaults_afterwards() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def fail_on(name: str) -> None:
    try:
        raise ValueError(f"could not read {name!r}")
    except ValueError as error:
        raise PacsAgentError("the header cannot be read") from error


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_traceback_quotes_no_header(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Frames, kinds of exceptions and our own words are logged; what a foreign exception quotes is not."""
    configure("info", form)
    try:
        fail_on(NAME)
    except PacsAgentError:
        structlog.get_logger().exception("study failed")
    log = capsys.readouterr().err
    assert "DOE" not in log
    for expected in ("study failed", "in fail_on", "builtins.ValueError", "led to", "the header cannot be read"):
        assert expected in log


def test_a_full_disk_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """What the operating system says is no header text and stays."""
    configure("info", "json")
    try:
        raise OSError(28, "No space left on device")
    except OSError:
        structlog.get_logger().exception("a station ended")
    assert json.loads(capsys.readouterr().err)["exception"].endswith("builtins.OSError: No space left on device")


def test_a_thread_that_dies_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever ends a thread is logged as everything else is, and what it quotes is not."""
    configure("info", "json")
    thread = threading.Thread(target=lambda: int(NAME), name="reader")
    thread.start()
    thread.join()
    [line] = capsys.readouterr().err.splitlines()
    assert "DOE" not in line
    told = json.loads(line)
    assert (told["event"], told["thread"]) == ("a thread ended by an error", "reader")
    assert told["exception"].endswith("builtins.ValueError")


def object_of(name: str) -> SOPClass:
    """An object as highdicom builds it."""
    return SOPClass("1.2", "1.3", 1, "1.4", Comprehensive3DSRStorage, 1, "SR", patient_name=name)


def test_no_library_warns_with_a_name() -> None:
    """highdicom quotes a patient's name that it finds odd, as pydicom quotes values; neither reaches stderr."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        object_of("DOE")
        assert "DOE" in str(caught.pop().message)
        configure("info", "console")
        object_of("DOE")
    assert caught == []


@pytest.mark.parametrize("form", ["console", "json"])
def test_what_identifies_a_patient_is_logged_on_demand_alone(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`phi` is dropped, and what a foreign exception quotes too; with `with_phi` both are there."""
    for with_phi in (False, True):
        configure("debug", form, with_phi=with_phi)
        try:
            fail_on(NAME)
        except PacsAgentError:
            structlog.get_logger().exception("study failed", phi={"patient_id": "PID7"})
        log = capsys.readouterr().err
        assert [mark in log for mark in ("DOE", "PID7")] == [with_phi, with_phi]


HOSTILE = "XR1\n2026-01-01 [info] forged\x1b[2J\x9b1m\r\u202eABC\u2028"


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_text_of_others_begins_no_line_and_moves_no_cursor(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As the event, as a value, within a list, and as what one of our own errors quotes."""
    configure("info", form)
    log = structlog.get_logger()
    log.info(HOSTILE, calling_ae_title=HOSTILE, several=[HOSTILE])
    try:
        raise PacsAgentError(HOSTILE)
    except PacsAgentError:
        log.exception("refused")
    told = capsys.readouterr().err
    assert not set(told) & set("\x1b\x9b\r\u202e\u2028")
    assert not [line for line in told.splitlines() if line.startswith("2026-01-01")]
    assert told.count("forged") == 4
