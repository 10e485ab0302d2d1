"""Trained models for others: cards, folders that can be pushed, and the code that opens them."""
