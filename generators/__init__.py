"""The built-in generators, one module or package each."""
