"""A run's inputs and its folder."""
