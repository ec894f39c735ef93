"""Logs of a small shop, as tables, drawn from a planted world."""
