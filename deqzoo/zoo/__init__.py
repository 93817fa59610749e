"""Names -> networks with weights: what is there, where its weights lie, and whether they are as published."""

from deqzoo.zoo.listing import Description, describe, list_models
from deqzoo.zoo.loading import create_model, load
from deqzoo.zoo.saving import save
from deqzoo.zoo.timm_models import register_with_timm

__all__ = ["Description", "create_model", "describe", "list_models", "load", "save"]

register_with_timm()
