"""Streams the numbers from 1."""

from collections.abc import AsyncIterator


async def handle(request: dict[str, int]) -> AsyncIterator[dict[str, int]]:
    for number in range(1, request["to"] + 1):
        yield {"number": number}
