"""Key object documents, made by highdicom."""

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian

REJECTED_FOR_QUALITY = Code("113001", "DCM", "Rejected for Quality Reasons")


def key_object(title: Code, images: list[Dataset]) -> Dataset:
    """A key object document of those images."""
    observer = hd.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(uid=hd.UID()),
    )
    content = hd.ko.KeyObjectSelection(
        document_title=title, referenced_objects=images, observer_device_context=observer
    )
    return hd.ko.KeyObjectSelectionDocument(
        evidence=images, content=content, series_instance_uid=hd.UID(), series_number=1, sop_instance_uid=hd.UID(),
        instance_number=1, manufacturer="phantom", institution_name=None, transfer_syntax_uid=ExplicitVRLittleEndian,
    )  # fmt: skip
