"""What the server is configured with: the model, where its values come from, and what keeps secrets in it secret."""

from service.settings.model import Settings

__all__ = ["Settings"]
