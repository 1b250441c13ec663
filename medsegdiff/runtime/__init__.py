"""Jittor's set-up before its first import, and what joint processes exchange by it."""
