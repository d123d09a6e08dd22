"""DICOM files: their pixels as 8-bit grays, and the few things of their headers that are kept."""
