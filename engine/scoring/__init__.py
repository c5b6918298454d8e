"""From responses to figures: graders, scores, summaries and their calibration."""
