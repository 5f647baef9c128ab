"""The reader of BCS-DBT: its tables, and the finding of its files."""
