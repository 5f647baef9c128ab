"""The import of volumes that were made elsewhere."""
