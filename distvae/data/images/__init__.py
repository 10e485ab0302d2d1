"""Images, one per row."""
