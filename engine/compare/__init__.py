"""`bin/compare`: other people's checkpoints and adapters beside their base, in one engine where it can be."""
