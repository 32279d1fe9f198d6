"""DICOM in: the listener (SCP) and the inbox (bytes that survive)."""
