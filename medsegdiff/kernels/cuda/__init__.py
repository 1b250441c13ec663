"""The operations on a GPU, where few launches matter more than few bytes: fused kernels in CUDA C++."""
