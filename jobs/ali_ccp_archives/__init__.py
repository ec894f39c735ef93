"""Ali-CCP's archives as raw logs."""
