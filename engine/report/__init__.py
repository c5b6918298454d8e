"""One self-contained page from run directories: `collect` reads, `plots` draws, `tables` and `browser` arrange, `page` writes."""
