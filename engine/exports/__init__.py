"""`bin/export`: a run's responses and scores, and directions, in the forms that other tools read."""
