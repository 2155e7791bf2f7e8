"""Losses, learning-rate schedule and the updater."""
