"""Published tables and figures: train their rows, and compare the results."""
