"""Sweeps: every layer, alpha and subspace of a model in one engine, screened, raced and confirmed on prompts that did not choose.

    result = run_sweep(config, path)     # what bin/sweep prints; see engine.sweep.search for the stages

Files: sweep.parquet (a row per variant and stage), rollouts, likelihoods, scores and screen.parquet, winner.toml.
"""
