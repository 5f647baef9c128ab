"""The built-in tasks, one module or package each."""
