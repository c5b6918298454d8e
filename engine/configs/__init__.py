"""Configurations: what may be set in a TOML file, and how files, flags and defaults meet."""
