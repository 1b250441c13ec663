"""The operations of a CPU: threaded C++ for what Jittor's own fused kernels compute on one thread."""
