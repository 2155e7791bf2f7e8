"""From observations to actions: encoders, the step token, memory, and the heads."""
