"""From paired prompts to one direction per layer, with plain transformers forward hooks.

    pairs = load_pairs("embedded:train_pairs")
    renderer = ChatRenderer(tokenizer)
    directions = extract_directions(model, renderer.render_pairs(pairs))   # directions.mean_difference_LH: (L+1, H)
    save_directions(path, directions, provenance)

Layer l is the residual stream that enters block l; layer L is what leaves the last block, before the final norm.
The names live in the modules: prompts, rendering, hooks, directions, files. Nothing heavy is imported here.
"""

from extraction.errors import ExtractionError

__all__ = ["ExtractionError"]
