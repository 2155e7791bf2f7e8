"""What helps to test a memory, a simulator, a sensor or a measure of one's own."""
