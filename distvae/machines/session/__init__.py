"""Sessions with Ray: with one that runs already, or with a private one on this machine."""
