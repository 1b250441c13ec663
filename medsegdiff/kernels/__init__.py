"""CPU kernels: threaded C++ for what Jittor's own fused kernels compute on one thread.

Each function falls back to the plain Jittor expression on other devices.
"""
