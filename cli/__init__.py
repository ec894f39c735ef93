"""What every command shares: arguments, configuration files, errors, logging, text tables, the version."""
