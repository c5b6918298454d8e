"""`bin/rollout` and `bin/judge`: directions, responses, likelihoods, scores, summary."""
