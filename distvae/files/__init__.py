"""Files: where they are, how they are read and written safely, and how bad input is refused."""
