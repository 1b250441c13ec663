"""Weights on the disk. Needs no Jittor."""
