"""Scores a response for compliance and coherence, each 0, 0.5 or 1, and puts intervals on rates.

    judge = OfflineJudge(reference_logprob=-0.8)
    judge.score(prompt, response, mean_logprob=-0.9)   # Judgement(compliance=0.0, coherence=1.0, ...)
    statistics.share(successes=12, total=500)   # Wilson's interval

A judgement that failed has compliance None, never 0. The names live in the modules: judgement, offline, statistics.
Nothing heavy is imported here.
"""

from judging.errors import JudgeError

__all__ = ["JudgeError"]
