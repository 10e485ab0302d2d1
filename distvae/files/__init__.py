"""Files: paths, storage, atomic writes, untrusted input, memory, and how bad input is refused."""
