"""Files, processes, progress and signals."""
