"""The version of dbtbench."""

__version__ = "0.1.0"
