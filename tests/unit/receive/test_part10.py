"""The head of a Part 10 file: byte for byte what pydicom writes."""

from pathlib import Path

import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_file_meta_info
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, RLELossless

from pacs_agent.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pacs_agent.receive.part10 import file_head
from pacs_agent.study.instance import Instance


@pytest.mark.parametrize("sop_instance_uid", ["1.2.3", "1.2.34", "1." + "2" * 62])
@pytest.mark.parametrize("calling_ae_title", ["XR1", "XR12", "A" * 16, "", "X R 1", "../../EVIL"])
@pytest.mark.parametrize("transfer_syntax_uid", [ExplicitVRLittleEndian, RLELossless])
def test_as_pydicom_writes_it(
    sop_instance_uid: str, calling_ae_title: str, transfer_syntax_uid: str, tmp_path: Path
) -> None:
    """Every length, odd or even, and an empty title; and pydicom reads it back. PS3.10 7.1"""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = sop_instance_uid
    meta.TransferSyntaxUID = transfer_syntax_uid
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    meta.SendingApplicationEntityTitle = calling_ae_title
    wanted = DicomBytesIO()
    wanted.write(b"\0" * 128 + b"DICM")
    write_file_meta_info(wanted, meta, enforce_standard=True)

    facts = Instance(sop_instance_uid, ComputedRadiographyImageStorage, "1.5", "1.4", transfer_syntax_uid)
    head = file_head(facts, calling_ae_title)
    assert head == wanted.getvalue()
    (tmp_path / "head.dcm").write_bytes(head)
    assert read_file_meta_info(tmp_path / "head.dcm") == meta
