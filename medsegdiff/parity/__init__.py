"""Replaying numbers that the PyTorch original computed."""
