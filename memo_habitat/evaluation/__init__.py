"""Whole trials in held-out houses, one record per episode."""
