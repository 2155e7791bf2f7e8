"""Hydra YAML: experiments are short deltas over one base; docs/configs.md lists them."""
