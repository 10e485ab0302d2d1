"""Checks of whether machines are fit to train: what is wrong with each, and the remedy."""
