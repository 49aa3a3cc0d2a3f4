"""Networks: plain nn.Modules that map images to logits."""

from fer_lightning.models.cnn import create_model

__all__ = ["create_model"]
