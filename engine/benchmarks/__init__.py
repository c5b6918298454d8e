"""Benchmarks behind `bin/bench-*`: each measures beside a named anchor, in the same process or on the same machine."""
