"""Masks: deciding, fusing, measuring; arrays in, numbers and arrays out. Needs no Jittor."""
