"""What Habitat's packaging makes necessary."""
