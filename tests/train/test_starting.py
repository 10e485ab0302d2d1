"""A local Ray starts on a slow machine, says in a sentence when it cannot, can be stopped while it starts, and leaves nothing."""
