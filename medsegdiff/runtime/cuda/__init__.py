"""Jittor on CUDA 12 and 13 with cuDNN 9, which its release 1.3.11 does not know: a private, changed copy of it.

Nothing here imports Jittor.
"""
