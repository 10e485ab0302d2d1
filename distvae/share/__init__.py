"""Trained models for other people: cards, pushed folders, and the code that opens them."""
