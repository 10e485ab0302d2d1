"""Whether machines are fit to train: what is wrong with each, and what to do about it."""
