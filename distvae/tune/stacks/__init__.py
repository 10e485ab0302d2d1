"""Stacks: trials that train together in one process."""
