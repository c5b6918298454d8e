"""`bin/edit`: a variant folded into a new checkpoint, exported, verified."""
