"""Kafka, thinly: producers, lanes, look-ups, groups and topics, each as an `async with` block.

The only package that knows the client library. One poll thread per client object, dumb: it hands
batches to the event loop by `call_soon_threadsafe` and decides nothing. What the records mean is
not known here.
"""

from bridge.kafka.backlog import Backlog, Groups, open_groups
from bridge.kafka.client import Config, check_config, dead_threads
from bridge.kafka.group import Group, open_group
from bridge.kafka.lane import open_lanes
from bridge.kafka.member import Assigned, GroupMember, GroupMetadata, Place, Position
from bridge.kafka.outcome import classify
from bridge.kafka.producer import Placed, Producer, Send, delivery_timeout_ms, open_producer
from bridge.kafka.reader import Reader, open_reader
from bridge.kafka.tail import open_tail
from bridge.kafka.topics import (
    Facts,
    Report,
    Shape,
    apply_topics,
    check_topics,
    describe_topics,
    look_at_topic,
)
from bridge.kafka.transaction import (
    Committed,
    Lost,
    NotCommitted,
    Transactions,
    open_transactions,
)

__all__ = [
    "Assigned",
    "Backlog",
    "Committed",
    "Config",
    "Facts",
    "Group",
    "GroupMember",
    "GroupMetadata",
    "Groups",
    "Lost",
    "NotCommitted",
    "Place",
    "Placed",
    "Position",
    "Producer",
    "Reader",
    "Report",
    "Send",
    "Shape",
    "Transactions",
    "apply_topics",
    "check_config",
    "check_topics",
    "classify",
    "dead_threads",
    "delivery_timeout_ms",
    "describe_topics",
    "look_at_topic",
    "open_group",
    "open_groups",
    "open_lanes",
    "open_producer",
    "open_reader",
    "open_tail",
    "open_transactions",
]
