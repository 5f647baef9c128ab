"""The reader of T-SYNTH: simulated breasts, as raw arrays in folders that say what they hold."""
