"""One module per command; `distvae.cli` parses and calls these."""
