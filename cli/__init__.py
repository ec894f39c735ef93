"""What every command shares: errors, configuration files, logging, text tables."""
