"""The embedded data: anatomy, lesions, acquisition and reconstruction of a physical phantom."""
