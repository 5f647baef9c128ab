"""Data in and out: collections and files become data sets, and data sets become files."""
