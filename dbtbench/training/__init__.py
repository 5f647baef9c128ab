"""One fit loop for everything that learns, on one process or several."""
