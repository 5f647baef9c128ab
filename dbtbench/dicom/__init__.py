"""Reader and writer of Breast Tomosynthesis Image Storage."""
