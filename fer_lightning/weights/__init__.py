"""The package's own trained model, and the weights that training starts from."""
