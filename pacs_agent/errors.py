"""One tree of exceptions; a docstring is the message when none is given."""

import errno

SHORTAGES = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}
)
"""`OSError.errno` of what may pass by itself: the machine's trouble, which says nothing of the object in hand."""


class PacsAgentError(Exception):
    """Something that pacs-agent foresaw went wrong."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class SettingsError(PacsAgentError):
    """The settings cannot be used."""


class DataDirectoryInUseError(PacsAgentError):
    """Another daemon works in this data directory."""


class NotUnderstoodError(PacsAgentError):
    """The data set cannot be read as DICOM (C-STORE status C000)."""


class DataSetMismatchError(PacsAgentError):
    """The data set does not match the request (C-STORE status A900)."""


class OutOfResourcesError(PacsAgentError):
    """Too little disk is left to accept an instance (C-STORE status A700)."""


class DatabaseError(PacsAgentError):
    """The database cannot be used."""


class DatabaseNewerError(DatabaseError):
    """The database was written by a newer pacs-agent."""


class DatabaseDamagedError(DatabaseError):
    """The database is damaged."""


class StatementError(DatabaseError):
    """The statement is wrong, or would write."""


class BundleError(PacsAgentError):
    """The model bundle cannot be used."""


class PixelsError(PacsAgentError):
    """The picture cannot be read; the message says why, for a person."""


class UnsupportedImageError(PixelsError):
    """The picture is of a kind that is not analysed."""


class UnreadableInstanceError(PixelsError):
    """The disk does not give an instance's file back, which says nothing of the picture."""


class WorkerDiedError(PacsAgentError):
    """The analysis process died or stopped answering."""


class WorkerUnavailableError(WorkerDiedError):
    """The analysis process cannot be started."""


class DeviceExhaustedError(PacsAgentError):
    """The device has not memory enough for a single image."""


class StationError(PacsAgentError):
    """A station of the daemon ended by an error that it does not know; the log has its traceback."""


class DeliveryError(PacsAgentError):
    """The destination cannot be reached, or refuses."""
