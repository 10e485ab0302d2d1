"""Variational autoencoders with sparse, dictionary and binary latents, from a laptop core to a cluster."""
