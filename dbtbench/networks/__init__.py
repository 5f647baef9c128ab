"""Networks and their conditioning, for any learned generator."""
