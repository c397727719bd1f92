"""What workers are told of cancelled requests: the records of `bridge.cancels`.

A request is cancelled when `cancelled` is the first last event in its lane; that alone decides. The
record here only spares the work: it names a piece of work that has ended so, for workers that have
not begun it, or are at it. It is written after the decision, so none of them is ever wrong.
"""

from bridge.envelope import GENERATION, REQUEST_ID, SERVICE, Headers, Identity, Record
from bridge.service import MAX_DEADLINE_S

TOPIC = "bridge.cancels"
PARTITION = 0
KEEP_S = MAX_DEADLINE_S
"""A request whose deadline is past is not worked on, so nobody need be told of it any longer."""


def make_cancel(service: str, request_id: str, generation: int) -> Record:
    """Make the record that tells workers of a cancelled request.

    Args:
        service: Whose request.
        request_id: Its name.
        generation: Which generation of it has ended; a later one is other work.
    """
    headers: Headers = [(REQUEST_ID, request_id.encode()), (SERVICE, service.encode())]
    if generation:
        headers.append((GENERATION, b"%d" % generation))
    return Record(
        topic=TOPIC, key=request_id.encode(), value=None, headers=headers, partition=PARTITION
    )


def parse_cancel(record: Record) -> tuple[str, Identity] | None:
    """Read whose request is cancelled, and which; None when the record does not say."""
    found = dict(record.headers)
    generation = found.get(GENERATION, b"0")
    if REQUEST_ID not in found or SERVICE not in found or not generation.isdigit():
        return None
    try:
        request_id, service = found[REQUEST_ID].decode(), found[SERVICE].decode()
    except UnicodeDecodeError:
        return None
    return service, (request_id, int(generation[:19]), None)
