"""Greets whoever asks."""

from bridge import PermanentError


async def handle(request: dict[str, str]) -> dict[str, str]:
    """Greet; a request without a name ends as `failed`."""
    if not request["name"]:
        raise PermanentError("nobody to greet")
    return {"greeting": f"Hello, {request['name']}"}
