"""The columns of a data set's tables, and the values that they may have."""

from __future__ import annotations

LABELS = ("normal", "actionable", "benign", "cancer")
SPLITS = ("train", "reserve", "validation", "test")
"""`reserve` holds training patients that an import set aside: no generator sees them, and no arm but those
that measure what more real data would give."""
FULL_SCALE = 65535
IDENTIFIER = r"(?![=+\-@])(?!\d+([.,]\d+)?[Ee]\+\d+$)[^\x00-\x1f\x7f-\x9f/\\]{1,128}"
"""Regular expression of a patient's or a study's identifier: no control characters, no path, nothing that a
spreadsheet would execute, and no number whose digits one has rounded (1.23E+11): several patients could have
become one."""
LARGEST_MM = 1000.0
"""The largest distance between voxels that is one."""

KEY = ["PatientID", "StudyUID", "View"]
SPACING = ["z_mm", "y_mm", "x_mm"]
GRID_BOX = ["z0", "y0", "x0", "z1", "y1", "x1"]
NATIVE_BOX = ["Subject", "Slice", "X", "Y", "Width", "Height", "Class", "AD", "VolumeSlices"]
AXIS_COLUMNS = [
    "breast_density",
    "dose",
    "lesion_kind",
    "lesion_size_mm",
    "lesion_contrast",
    "lesion_contrast_imaged",
]
"""Columns of cases.csv that a collection with a table of axes adds, to split scores by."""
CASE_COLUMNS = [
    "case",
    *KEY,
    "label",
    "split",
    "slices",
    "rows",
    "columns",
    "pixel_mm",
    *SPACING,
    "flipped",
    "file",
    "bytes",
    "sha256",
]
BOX_COLUMNS = ["case", *KEY, *GRID_BOX, *NATIVE_BOX]
REJECTED_COLUMNS = ["table", *KEY, "file", "bytes", "reason", "detail"]
CASE_FILLED = {
    "case": int,
    **dict.fromkeys([*KEY, "label", "split", "sha256"], str),
    **dict.fromkeys(["slices", "rows", "columns"], int),
}
"""Columns of cases.csv that have a value in every row, and its type."""
BOX_FILLED = {
    "case": int,
    **dict.fromkeys([*KEY, "Class"], str),
    **dict.fromkeys([*GRID_BOX, "Slice", "X", "Y", "Width", "Height"], float),
}
"""The same for boxes.csv."""
