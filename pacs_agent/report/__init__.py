"""Finding in, DICOM objects out. Pure: no socket, no SQL, no clock."""
