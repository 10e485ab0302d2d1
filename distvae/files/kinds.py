"""Kinds of pictures and sounds, by their suffixes. Nothing heavy is imported for them."""

TIFF = (".tif", ".tiff")
"""The kinds of picture that are written with floats, or hold several."""
DEEP_PICTURES = (".png", *TIFF)
"""The kinds of picture that are written with 16 bits."""
TRANSPARENT = (*DEEP_PICTURES, ".webp")
"""The kinds of picture that are written with transparency."""
PICTURES = (*DEEP_PICTURES, ".jpg", ".jpeg", ".bmp", ".webp", ".pgm", ".ppm")
SOUNDS = (".wav", ".flac", ".ogg", ".mp3")
