"""From a DICOM object's bytes to modality values and a displayed image."""
