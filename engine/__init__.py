"""The top: configurations, stages, the vLLM replica and its hot swap, stores and summaries.

    config = load_config("smollm2_135m_k1")
    run(config, run_dir)              # directions, rollouts, likelihoods, scores, summary in runs/<variant>/

Alone among the packages it imports the other three. Nothing heavy is imported here.
"""

from engine.errors import EngineError

__all__ = ["EngineError"]
