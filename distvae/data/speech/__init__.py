"""Recordings as frames of power spectra."""
