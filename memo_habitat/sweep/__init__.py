"""Trains and evaluates variants at several seeds in one folder, and goes on where it was left."""
