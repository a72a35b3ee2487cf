"""Reading DICOM headers and deriving UIDs, pixels untouched."""
