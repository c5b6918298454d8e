"""Variants behind vLLM's OpenAI-compatible server: `launch` makes what is missing and becomes the server, `ready` says when it
answers."""
