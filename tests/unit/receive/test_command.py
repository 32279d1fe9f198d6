"""C-STORE's command sets, against what pynetdicom reads and writes."""

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import ComputedRadiographyImageStorage
from pynetdicom.dimse_messages import C_ECHO_RQ, C_STORE_RQ, C_STORE_RSP
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.dsutils import encode

from pacs_agent.receive.command import read_store_request, write_store_response


def request(*, priority: int = 2, message_id: int = 7, uid: str = "1.2.3.45") -> C_STORE:
    primitive = C_STORE()
    primitive.MessageID = message_id
    primitive.AffectedSOPClassUID = ComputedRadiographyImageStorage
    primitive.AffectedSOPInstanceUID = uid
    primitive.Priority = priority
    primitive.DataSet = BytesIO(b"\0\0")
    return primitive


def command_set(primitive: C_STORE) -> Dataset:
    message = C_STORE_RQ()
    message.primitive_to_message(primitive)
    command: Dataset = message.command_set
    return command


def encoded(command: Dataset) -> bytes:
    result: bytes | None = encode(command, True, True)
    assert result is not None
    return result


@pytest.mark.parametrize("priority", [0, 1, 2])
@pytest.mark.parametrize("uid", ["1.2.3.4", "1.2.3.45"])
def test_reads_the_request_that_pynetdicom_writes(priority: int, uid: str) -> None:
    read = read_store_request(encoded(command_set(request(priority=priority, uid=uid, message_id=65535))))

    assert read is not None
    assert (read.MessageID, read.Priority, read.AffectedSOPInstanceUID) == (65535, priority, uid)
    assert read.AffectedSOPClassUID == ComputedRadiographyImageStorage
    assert read.MessageIDBeingRespondedTo is None


def test_leaves_every_other_message_to_pynetdicom() -> None:
    echo = C_ECHO()
    echo.MessageID, echo.AffectedSOPClassUID = 1, "1.2.840.10008.1.1"
    message = C_ECHO_RQ()
    message.primitive_to_message(echo)

    assert read_store_request(encoded(message.command_set)) is None


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("MoveOriginatorMessageID", 3),  # a C-STORE of a C-MOVE
        ("CommandDataSetType", 0x0101),
        ("CommandField", 0x8001),
        ("Priority", 3),
        ("AffectedSOPInstanceUID", "1.2.x"),
        ("AffectedSOPClassUID", ""),
        ("AffectedSOPInstanceUID", "1." + "2" * 64),
        ("ErrorComment", "text"),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_leaves_a_request_out_of_the_ordinary_to_pynetdicom(keyword: str, value: object) -> None:
    command = command_set(request())
    setattr(command, keyword, value)

    assert read_store_request(encoded(command)) is None


def test_leaves_a_request_that_lacks_an_element_to_pynetdicom() -> None:
    for element in command_set(request()):
        command = command_set(request())
        del command[element.tag]
        assert read_store_request(encoded(command)) is None


@pytest.mark.parametrize("times", [2, 3])
def test_leaves_a_request_that_says_an_element_twice_to_pynetdicom(times: int) -> None:
    """Which of two UIDs counts is not for us to choose."""
    whole = encoded(command_set(request(uid="1.2.3.45")))
    instance_uid = whole[-16:]
    assert instance_uid[:4] == b"\0\0\0\x10"

    assert read_store_request(whole + instance_uid * (times - 1)) is None


def test_leaves_a_request_that_ends_too_early_or_too_late_to_pynetdicom() -> None:
    """Every shorter piece of a command set, and every longer one."""
    whole = encoded(command_set(request()))

    assert [end for end in range(len(whole)) if read_store_request(whole[:end])] == []
    assert read_store_request(whole + b"\0") is None


@given(st.binary(max_size=200), st.integers(0, 130), st.integers(0, 130))
def test_never_fails_whatever_the_bytes(noise: bytes, begin: int, end: int) -> None:
    whole = encoded(command_set(request()))

    read_store_request(noise)
    read_store_request(whole[:begin] + noise + whole[end:])


@pytest.mark.parametrize("status", [0x0000, 0xA700, 0xB000])
@pytest.mark.parametrize("uid", ["1.2.3.4", "1.2.3.45"])
def test_writes_the_response_byte_for_byte_as_pynetdicom_does(status: int, uid: str) -> None:
    response = C_STORE()
    response.MessageIDBeingRespondedTo = 513
    response.AffectedSOPClassUID = ComputedRadiographyImageStorage
    response.AffectedSOPInstanceUID = uid
    response.Status = status
    message = C_STORE_RSP()
    message.primitive_to_message(response)

    assert write_store_response(response) == encoded(message.command_set)


def test_leaves_a_response_with_a_comment_to_pynetdicom() -> None:
    response = C_STORE()
    response.MessageIDBeingRespondedTo, response.Status = 1, 0xA700
    response.AffectedSOPClassUID, response.AffectedSOPInstanceUID = ComputedRadiographyImageStorage, "1.2"
    response.ErrorComment = "too little space"

    assert write_store_response(response) is None


def test_leaves_a_response_with_a_uid_that_is_not_ascii_to_pynetdicom() -> None:
    """Such a UID comes back as it came, and no thread dies of it."""
    response = C_STORE()
    response.MessageIDBeingRespondedTo, response.Status = 1, 0xC211
    response.AffectedSOPClassUID, response.AffectedSOPInstanceUID = ComputedRadiographyImageStorage, "1.2.\xe9"

    assert write_store_response(response) is None
