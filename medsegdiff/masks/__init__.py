"""Masks: fusing ensembles, measuring, drawing. Needs no Jittor."""
