"""One module for each command. `distvae.cli` parses the command line and calls these functions."""
