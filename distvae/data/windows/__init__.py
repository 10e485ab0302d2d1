"""Windows of one picture or sound, or of several pictures."""
