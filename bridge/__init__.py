"""What the author of a handler imports; nothing here starts a thread or loads Kafka's library."""

from bridge.context import Context
from bridge.errors import PermanentError, RetryableError

__all__ = ["Context", "PermanentError", "RetryableError"]
