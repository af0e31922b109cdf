"""The gateway in one process, without Ray: ``waypost serve --local`` and ``waypost.Gateway``."""

from waypost.serve.local.gateway import Gateway
from waypost.serve.local.reply import Reply

__all__ = ["Gateway", "Reply"]
