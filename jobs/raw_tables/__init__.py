"""Logs that are tables, read by Spark's own readers, as packed rows."""
