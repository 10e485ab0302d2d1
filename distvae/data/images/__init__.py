"""Images, one a row."""
