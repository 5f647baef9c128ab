"""`python -m dbtbench` is `dbtbench`."""

from dbtbench.cli import main

if __name__ == "__main__":
    main()
