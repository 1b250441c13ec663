"""What the machine offers, what its device computes, and kernels compiled ahead of time."""
