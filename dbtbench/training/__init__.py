"""What learned plug-ins share: one fit loop, and processes that work together."""
