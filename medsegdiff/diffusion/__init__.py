"""Gaussian diffusion: schedules, losses, timestep sampling, samplers."""
