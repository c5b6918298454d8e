"""lm-eval on the running engine: base and variants scored in one vLLM process, document by document, and compared in pairs."""
