"""The training loop and the run folder it writes.

`distvae.train("mnist-vae", data)` trains a model. `help(distvae.interactive.train)` names its
parameters.
"""
