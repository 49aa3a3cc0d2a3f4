"""Networks: plain nn.Modules that map images to logits."""

from fer_lightning.models.create import NAMES, create_model, net_of

__all__ = ["NAMES", "create_model", "net_of"]
