"""A Habitat-Lab plugin: Memo policy, ExtObjNav task and DD-PPO trainer with summary memory."""

__version__ = "0.1.0"
