"""Files: paths, storage, atomic writes, untrusted input, memory, and refusals of bad input."""
