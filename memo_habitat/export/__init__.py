"""Trained agents for others: a folder to publish, and how to act with what is in it."""
