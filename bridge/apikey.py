"""API keys: who may ask, and as whom.

A key is `kb_<id>_<secret>`; a file holds a line for each: its ID, the SHA-256 of its secret, the
principal that it stands for. Pure: the file's text, and the chance that a secret is made of, are
passed in. A secret is 256 random bits, so there is nothing to guess from its hash and a plain
SHA-256 is right; a slow hash (bcrypt) is for passwords that people choose, and would cost every
request. No error and no `repr` here tells what a line holds: somebody may have put a secret there.
"""

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass, field

from bridge.errors import SettingsError

SECRET_BYTES = 32
PREFIX = "kb_"
"""What every key starts with, for those who search their files for secrets."""

_ID = re.compile(r"[a-z0-9]{4,32}\Z")
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_PRINCIPAL = re.compile(r"[A-Za-z0-9._@:/+-]{1,128}\Z")
_FORMS = (
    (_ID, "its ID, the first word, is not 4 to 32 of a-z 0-9"),
    (_DIGEST, "its hash, the second word, is not a SHA-256 of 64 digits 0-9 a-f"),
    (_PRINCIPAL, "its principal, the third word, is not 1 to 128 of A-Z a-z 0-9 . _ @ : / + -"),
)
_NOBODY = bytes(32)
"""Stands for the digest of a key that is not there, so that it takes as long as one that is."""


@dataclass(frozen=True, slots=True)
class _Key:
    digest: bytes
    principal: str


@dataclass(frozen=True, slots=True)
class ApiKeys:
    """The keys of a bridge; immutable. There is at least one.

    Several keys may stand for one principal: that is how a key is replaced without a gap.
    """

    _by_id: dict[bytes, _Key] = field(repr=False)

    def __len__(self) -> int:
        return len(self._by_id)

    def authenticate(self, authorization: bytes) -> str | None:
        """Return the principal that the value of an `Authorization` header stands for.

        None: it stands for nobody. An unknown ID is compared like a known one with a wrong secret.
        """
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            return None
        prefix, _, rest = token.strip(b" ").partition(b"_")
        key_id, _, secret = rest.partition(b"_")
        key = self._by_id.get(key_id)
        expected = _NOBODY if key is None else key.digest
        is_equal = hmac.compare_digest(hashlib.sha256(secret).digest(), expected)
        return key.principal if key is not None and is_equal and prefix == b"kb" else None


def parse(text: str) -> ApiKeys:
    """Read the text of a file of keys: `ID SHA256 PRINCIPAL` a line; `#` begins a comment.

    Raises:
        SettingsError: A line is none of it, an ID is there twice, or there is no key at all. An
            empty file does not mean that everybody may ask.
    """
    found: dict[bytes, _Key] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        trouble = _check(words, found)
        if trouble:
            raise SettingsError(
                f"BRIDGE_API_KEYS, line {number}: {trouble}; `kbridge keys new` prints such a line"
            )
        key_id, digest, principal = words
        found[key_id.encode()] = _Key(bytes.fromhex(digest), principal)
    if not found:
        raise SettingsError(
            "BRIDGE_API_KEYS holds no key: want one or more, from `kbridge keys new`; to ask "
            "nobody for a key, do not set it"
        )
    return ApiKeys(found)


def _check(words: list[str], found: dict[bytes, _Key]) -> str | None:
    if len(words) != 3:  # noqa: PLR2004 - the three words of a line
        return f"it has {len(words)} words: want ID SHA256 PRINCIPAL"
    if words[0].encode() in found:
        return "its ID, the first word, is there already on an earlier line"
    for word, (form, wanted) in zip(words, _FORMS, strict=True):
        if form.match(word) is None:
            return wanted
    return None


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made.

    Attributes:
        key: The whole key, for whoever asks; it cannot be told from the line.
        line: For the file of keys.
    """

    key: str = field(repr=False)
    line: str


def make(principal: str, *, key_id: str, secret: bytes) -> NewKey:
    """Make a key.

    Args:
        principal: Whom it stands for.
        key_id: Its name, 4 to 32 of a-z 0-9.
        secret: 32 random bytes.

    Raises:
        SettingsError: The principal cannot be one.
    """
    if _PRINCIPAL.match(principal) is None:
        raise SettingsError(
            f"principal {principal[:128]!r}: want 1 to 128 of A-Z a-z 0-9 . _ @ : / + -"
        )
    text = base64.urlsafe_b64encode(secret).rstrip(b"=")
    digest = hashlib.sha256(text).hexdigest()
    return NewKey(f"{PREFIX}{key_id}_{text.decode()}", f"{key_id} {digest} {principal}")
