"""Takes a request and tells nobody."""


async def handle(request: dict[str, int]) -> None:
    assert request["to"] >= 0
