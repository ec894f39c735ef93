"""Packed rows as samples: sorting out of the rows of a task, Parquet files, quarantine."""
