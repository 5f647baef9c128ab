"""Reading and writing Breast Tomosynthesis Image Storage."""
