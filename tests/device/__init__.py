"""Training on a device that is pretended: what would not run on a GPU does not run on it."""
