"""The networks, on Jittor."""
