"""Id tables: how often each id is in the raw logs, and what becomes known."""
