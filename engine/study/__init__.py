"""Studies of what a run's directions are worth: geometry, runtime ablation, regrowth, transfer, behaviour. One module a question;
each writes one JSON file into the run directory, which engine.report draws."""
