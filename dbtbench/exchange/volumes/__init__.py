"""Volumes that were made elsewhere become a synthetic data set."""
