"""What `bin/bench-*` runs: each measures beside its named anchor in the same process or machine."""
