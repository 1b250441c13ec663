"""Medical image segmentation with a conditional diffusion model (MedSegDiff), on Jittor."""

__version__ = "0.1.0"
