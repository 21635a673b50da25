"""tfscale's Hydra configuration: YAML only, shipped as `tfscale.configs`."""
