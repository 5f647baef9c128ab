"""A BCS-DBT collection becomes a data set."""
