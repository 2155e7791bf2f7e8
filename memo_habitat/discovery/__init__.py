"""How Habitat and Hydra find this package, and how Habitat imports without Habitat-Sim."""
