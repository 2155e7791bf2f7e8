"""Tasks registered with Habitat."""
