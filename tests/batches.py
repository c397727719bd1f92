"""Batches as a client sends them: written and read at the same time, on one connection."""

import http.client
import json
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

Json = dict[str, object]


class Batch:
    """One batch under way.

    Args:
        url: The ingress.
        service: Whom to ask.
        headers: More of them.
        receive_bytes: How much of the answer the kernel may hold; None: as it likes.
    """

    def __init__(
        self,
        url: str,
        service: str,
        headers: Mapping[str, str] | None = None,
        *,
        receive_bytes: int | None = None,
    ) -> None:
        address = urlsplit(url)
        self._connection = http.client.HTTPConnection(
            address.hostname or "", address.port, timeout=60
        )
        self._connection.connect()
        if receive_bytes is not None:
            raw = self._connection.sock
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self._connection.putrequest("POST", f"/v1/services/{service}/requests/batch")
        self._connection.putheader("content-type", "application/x-ndjson")
        self._connection.putheader("transfer-encoding", "chunked")
        for name, value in (headers or {}).items():
            self._connection.putheader(name, value)
        self._connection.endheaders()

    def send(self, content: bytes) -> None:
        """Send some of the body; blocks while the ingress does not read."""
        self._connection.send(b"%x\r\n%b\r\n" % (len(content), content))

    def end(self) -> None:
        """Say that this was all."""
        self._connection.send(b"0\r\n\r\n")

    def results(self) -> Iterator[Json]:
        """Read the answer line by line, the summary last; also while lines are sent."""
        with closing(self._connection), self._connection.getresponse() as response:
            assert response.status == 200, response.read()
            assert response.headers["content-type"] == "application/x-ndjson"
            while line := response.readline():
                yield json.loads(line)

    def cut(self) -> None:
        """Break the connection as a machine that loses power does: with a reset."""
        raw = self._connection.sock
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.close()
        self._connection.close()


def peak_mib(pid: int) -> float:
    """The most memory that a process has had, in MiB."""
    return _status_mib(pid, "VmHWM")


def now_mib(pid: int) -> float:
    """The memory that a process has, in MiB."""
    return _status_mib(pid, "VmRSS")


def _status_mib(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"{name} is not told")
