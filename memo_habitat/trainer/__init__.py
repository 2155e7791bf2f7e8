"""Collect, update, refresh, log, checkpoint, resume."""
