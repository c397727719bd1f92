"""Who asks: every path needs a key, except those that are named here.

So a new route is closed until somebody opens it here, and so is whatever no route answers: without
a key nobody learns which paths there are. The path is compared as the router will see it.
"""

from starlette.types import Scope

from bridge.apikey import ApiKeys
from bridge.errors import UnauthenticatedError

OPEN = frozenset({"/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"})
"""Asked by machines that hold no key, or read before there is one; they tell of no request."""
_OPEN_SCHEMAS = "/schemas/ids/"


def is_open(path: str) -> bool:
    """Tell whether a path is answered without a key."""
    if path in OPEN:
        return True
    return path.startswith(_OPEN_SCHEMAS) and "/" not in path[len(_OPEN_SCHEMAS) :]


def authenticate(keys: ApiKeys, scope: Scope) -> str:
    """Return the principal of an HTTP request.

    Raises:
        UnauthenticatedError: No key, more than one, or one that is not known. Which of it is not
            said where a key was given.
    """
    found: bytes | None = None
    for name, value in scope["headers"]:
        if name == b"authorization":
            if found is not None:
                raise UnauthenticatedError("Authorization is there twice: want it once")
            found = value
    if found is None:
        raise UnauthenticatedError("no API key: want Authorization: Bearer kb_…")
    principal = keys.authenticate(found)
    if principal is None:
        raise UnauthenticatedError(
            "the API key is not known here: want Authorization: Bearer kb_… with a key of this "
            "bridge"
        )
    return principal


def principal_of(scope: Scope) -> str | None:
    """Return who asks, as `Front` has found out; None: nobody is asked for a key."""
    principal: str | None = scope["state"].get("principal")
    return principal
