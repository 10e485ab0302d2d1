"""Uses of a trained model: evaluate it, resynthesise, encode, and restore with it."""
