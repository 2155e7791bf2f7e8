"""Evaluation of agents over whole trials, and the report made of its records."""
