"""DICOM images as volumes, and segmentations of them."""
