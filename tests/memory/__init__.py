"""Tests of the memory transformer."""
