"""Kling 3.0 text-to-video in Jupyter."""

__version__ = "0.1.0"
