"""Published tables and figures, made again: what was obtained beside what was published."""
