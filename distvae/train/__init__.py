"""The training loop, and the run folder that it writes.

`distvae.train("mnist-vae", data)` trains a model; see `help(distvae.interactive.train)`.
"""
