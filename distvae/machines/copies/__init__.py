"""Copies of a training in the memory of other processes, from which it goes on after a failure."""
