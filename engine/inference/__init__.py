"""One vLLM engine: its arguments, its arithmetic, and the swap of an edit into its weights."""
