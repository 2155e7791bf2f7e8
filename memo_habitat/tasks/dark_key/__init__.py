"""Dark-Key-To-Door: a grid world in which an agent finds a key and a door, again and again."""
