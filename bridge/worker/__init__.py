"""The worker: takes records of one service, runs its handler, writes the answer, commits.

Opens no port, unless told to for those who run it. Order of effects: the reply is acknowledged first, the offset is committed second; a
crash between the two is found again in the reply log, so a request is answered once.
"""

from bridge.worker.admin import make_admin
from bridge.worker.begin import Clients
from bridge.worker.cancelled import open_cancelled
from bridge.worker.handler import Handler, load_handler
from bridge.worker.http import open_http
from bridge.worker.isolated import open_isolated
from bridge.worker.once import open_once
from bridge.worker.program import open_program
from bridge.worker.run import Worker

__all__ = [
    "Clients",
    "Handler",
    "Worker",
    "load_handler",
    "make_admin",
    "open_cancelled",
    "open_http",
    "open_isolated",
    "open_once",
    "open_program",
]
