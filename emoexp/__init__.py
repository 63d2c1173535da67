"""Experiments on imbalanced image classes: what helps, by how much, and how sure are we."""

__version__ = "0.1.0"
