"""What the commands that Hydra configures share: settings composed and checked, mistakes in one sentence."""
