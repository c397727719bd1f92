"""What the ingress grants, and to whom."""

from dataclasses import dataclass
from pathlib import Path

from bridge.apikey import ApiKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the ingress grants, and to whom.

    Attributes:
        waiters: Clients that may wait at once.
        batch_lines: Lines of one batch that are worked on at once.
        max_wait_s: Longest wait, seconds.
        max_body_bytes: Largest body.
        max_depth: Deepest JSON nesting.
        max_header_bytes: Largest sum of header names and values.
        max_headers: Most header fields.
        max_uri_bytes: Longest request target.
        head_s: Seconds for the head of a request to come.
        body_s: Seconds for its body; of a batch: for each piece of it.
        stalled_s: Seconds without taking anything of what is written to it, after which a client is
            cut off; as long as nginx and Apache wait.
        connections: Clients that may be connected at once.
        keys: Who may ask; None: everybody, and nobody is told apart.
        no_worker_s: Seconds without any worker after which nobody shall wait; 0: never.
        claims_dir: Where the index of claims is kept; None: in memory.
        grace_s: Seconds to write what is not acknowledged yet, on leaving.
    """

    waiters: int = 10_000
    batch_lines: int = 256
    max_wait_s: float = 300.0
    max_body_bytes: int = 1_000_000
    max_depth: int = 64
    max_header_bytes: int = 32_768
    max_headers: int = 100
    max_uri_bytes: int = 8192
    head_s: float = 10.0
    body_s: float = 30.0
    stalled_s: float = 60.0
    connections: int = 16_384
    keys: ApiKeys | None = None
    no_worker_s: float = 15.0
    keep_alive_s: float = 15.0
    claims_dir: Path | None = None
    grace_s: float = 10.0

    @property
    def max_head_bytes(self) -> int:
        """The head of a request in bytes on the wire: target, fields, and what is between them."""
        return self.max_uri_bytes + self.max_header_bytes + 4 * self.max_headers + 64
