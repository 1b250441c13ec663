"""Datasets: finding, checking, decoding and caching images and masks. Needs no Jittor."""
