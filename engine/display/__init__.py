"""How figures and words look: on the terminal, in plots, in pages."""
