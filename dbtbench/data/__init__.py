"""DBT data sets: the format, its reader and writer, checks and summaries."""
