"""Pixels in, finding out."""
