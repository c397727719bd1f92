"""The ingress: writes requests, follows reply logs, answers whoever waits.

Stateless but for who waits: whatever is known of a request is in its lane, so any replica can
answer for it, at any time, also after a restart.
"""

from bridge.ingress.app import make_app
from bridge.ingress.ask import Ingress
from bridge.ingress.limits import Limits

__all__ = ["Ingress", "Limits", "make_app"]
