"""What the listener offers: storage classes and transfer syntaxes, in the order of our liking."""

from pydicom.uid import (
    HEVCM10P51,
    HEVCMP51,
    HTJ2K,
    JPEG2000,
    JPEG2000MC,
    MPEG2MPHL,
    MPEG2MPHLF,
    MPEG2MPML,
    MPEG2MPMLF,
    MPEG4HP41,
    MPEG4HP41BD,
    MPEG4HP41BDF,
    MPEG4HP41F,
    MPEG4HP42STEREO,
    MPEG4HP42STEREOF,
    MPEG4HP422D,
    MPEG4HP422DF,
    MPEG4HP423D,
    MPEG4HP423DF,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEG2000MCLossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from pynetdicom import AllStoragePresentationContexts, build_context
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification

# PS3.8 9.3.3.2: the acceptor chooses one of those proposed; the first of this list that the sender proposes wins, so
# what is uncompressed comes first, explicit before implicit, and an image that is proposed compressed only stays so.
# Left out: JPIP, whose pixels lie elsewhere, and SMPTE ST 2110, which is a live stream.
TRANSFER_SYNTAXES: tuple[str, ...] = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    JPEGLossless,
    JPEGLSLossless,
    JPEG2000Lossless,
    JPEG2000MCLossless,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    RLELossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
    JPEG2000,
    JPEG2000MC,
    HTJ2K,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    MPEG2MPML,
    MPEG2MPMLF,
    MPEG2MPHL,
    MPEG2MPHLF,
    MPEG4HP41,
    MPEG4HP41F,
    MPEG4HP41BD,
    MPEG4HP41BDF,
    MPEG4HP422D,
    MPEG4HP422DF,
    MPEG4HP423D,
    MPEG4HP423DF,
    MPEG4HP42STEREO,
    MPEG4HP42STEREOF,
    HEVCMP51,
    HEVCM10P51,
)

# Only 128 contexts fit in a request; an acceptor may know more. Every class: a sender that is refused one context of a
# study (a report, a presentation state) may abort the whole.
STORAGE_CLASSES: tuple[str, ...] = tuple(str(context.abstract_syntax) for context in AllStoragePresentationContexts)
COMMITMENT_TRANSFER_SYNTAXES: tuple[str, ...] = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
VERIFICATION_TRANSFER_SYNTAXES: tuple[str, ...] = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)


class SharedContexts(list[PresentationContext]):
    """Contexts that every association reads and none changes: pynetdicom's copy for each would take 30 ms."""

    def __deepcopy__(self, _memo: object) -> "SharedContexts":
        return self


def supported_contexts() -> SharedContexts:
    """The presentation contexts of the acceptor: every storage class, Verification, and Storage Commitment."""
    return SharedContexts(
        [
            *(build_context(uid, list(TRANSFER_SYNTAXES)) for uid in STORAGE_CLASSES),
            build_context(Verification, list(VERIFICATION_TRANSFER_SYNTAXES)),
            _commitment_context(),
        ]
    )


def _commitment_context() -> PresentationContext:
    """For the report of a destination that opens an association of its own: it stays the SCP. PS3.4 J.3.3

    Those that leave out the role selection (PS3.7 D.3.3.4) are accepted too.
    """
    context = build_context(StorageCommitmentPushModel, list(COMMITMENT_TRANSFER_SYNTAXES))
    context.scu_role, context.scp_role = False, True
    return context
