"""A training from its settings to its finished folder, and what other commands that write such a folder share."""
