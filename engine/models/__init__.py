"""A base model on disk, and the variants made from it."""
