"""From files to data points."""
