"""DICOM out: the outbox and the sender (SCU)."""
