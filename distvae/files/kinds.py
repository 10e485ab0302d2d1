"""Kinds of pictures and sounds, by their suffixes. This module imports no large package."""

TIFF = (".tif", ".tiff")
"""Picture formats with floats and with several pictures in a file."""
DEEP_PICTURES = (".png", *TIFF)
"""Picture formats with 16 bits."""
TRANSPARENT = (*DEEP_PICTURES, ".webp")
"""Picture formats with transparency."""
PICTURES = (*DEEP_PICTURES, ".jpg", ".jpeg", ".bmp", ".webp", ".pgm", ".ppm")
SOUNDS = (".wav", ".flac", ".ogg", ".mp3")
