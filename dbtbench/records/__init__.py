"""Records of finished runs: what one holds, how it is read, and which ones may be compared."""

from dbtbench.records.reading import (
    InstalledMetrics,
    Result,
    check_kept,
    outcomes_file,
    outcomes_files,
    read_record,
    read_result,
    read_results,
)
from dbtbench.records.schema import TABLE, Record, explain

__all__ = [
    "TABLE",
    "InstalledMetrics",
    "Record",
    "Result",
    "check_kept",
    "explain",
    "outcomes_file",
    "outcomes_files",
    "read_record",
    "read_result",
    "read_results",
]
