"""Networks and their conditioning, for any generator that learns."""
