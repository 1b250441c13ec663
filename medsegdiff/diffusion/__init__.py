"""Gaussian diffusion: schedules, the process, timestep sampling, samplers. NumPy only."""
