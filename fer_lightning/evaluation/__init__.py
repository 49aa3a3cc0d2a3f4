"""Evaluation of a trained model: the sections of `evaluate`'s report, and the pages that show them."""
