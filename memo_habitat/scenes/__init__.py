"""Procedural homes, written to disk as a Habitat scene data set with episode files."""
