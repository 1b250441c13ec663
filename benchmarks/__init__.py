"""Comparisons with the same networks in PyTorch; not part of the installed package."""
