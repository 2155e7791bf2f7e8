"""The interface that the task needs of any simulator, and the ray-casting simulator behind it."""
