"""Pure functions: arrays or tables in, numbers out."""
