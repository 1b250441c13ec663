"""Comparisons with the same networks in PyTorch; no part of the installed package."""
