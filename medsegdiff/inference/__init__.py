"""Segmenting with a trained network."""
