"""What is known of a request, as HTTP."""

import json

from bridge import service
from bridge.envelope import Event, Reply
from bridge.ingress.answer import render
from bridge.replylog import ReplyLog

SCHEMA = '{"type":"record","name":"P","namespace":"n","fields":[{"name":"t","type":"string"}]}'


def test_a_stream_too_large_for_one_answer_is_not_collected_and_events_are_named() -> None:
    stream = service.load("s", request=SCHEMA, reply=SCHEMA, settings='reply = "stream"')
    part = stream.encode_reply({"t": "x" * (1 << 20)})
    log = ReplyLog()
    for number in range(17):
        log.take(
            Reply(request_id="r", event=Event.PART, offset=number, sequence=number, value=part)
        )
    log.take(Reply(request_id="r", event=Event.COMPLETED, offset=17, sequence=17))

    answer = render(stream, "r", log)

    assert answer.status_code == 502
    assert answer.headers["bridge-state"] == "completed"
    problem = json.loads(bytes(answer.body))
    assert problem["code"] == "parts-too-large"
    assert "/events" in problem["detail"]
