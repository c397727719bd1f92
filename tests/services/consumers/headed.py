"""Tells which headers it heard, and says those that it is told to."""

from bridge import Context, PermanentError


async def handle(request: dict[str, object], context: Context) -> dict[str, object]:
    say = request["say"]
    assert isinstance(say, dict)
    context.reply_headers.update(say)
    if request["refuse"]:
        raise PermanentError("no")
    return {"heard": dict(context.headers)}
