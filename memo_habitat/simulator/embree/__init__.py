"""A simulator on the CPU by ray casting."""
