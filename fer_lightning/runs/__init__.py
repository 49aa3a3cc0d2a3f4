"""A training from its settings to its finished folder."""
