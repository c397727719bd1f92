"""Gives back what it gets; refuses what is bad."""

from bridge import PermanentError


async def handle(request: dict[str, object]) -> dict[str, object]:
    if request["kind"] == "BAD":
        raise PermanentError("bad", code="bad")
    return request
