"""Files, locks, clocks."""
