"""Jittor's set-up before its first import, and what processes exchange through it."""
