"""Datasets: finding, checking, caching, splitting and loading images and masks. Needs no Jittor."""
