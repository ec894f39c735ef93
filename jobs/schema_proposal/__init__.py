"""A first schema for tables that nobody has described: what their columns can be, counted and guessed."""
