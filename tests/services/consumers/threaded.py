"""The same in a plain function, which runs in a thread."""

import os
import time

from bridge import Context


def handle(request: dict[str, object], context: Context) -> dict[str, object]:
    sleep_s = request["sleep_s"]
    assert isinstance(sleep_s, float)
    context.progress(None, "from a thread")
    time.sleep(sleep_s)
    text = f"{context.deadline_s}" if request["do"] == "deadline" else request["text"]
    return {"text": text, "request_id": context.request_id, "pid": os.getpid()}
