"""Raw logs as packed rows: files, byte ranges, parsing."""
