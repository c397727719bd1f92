"""API keys: who may ask, and as whom."""

import ast
import inspect
import json
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import apikey
from bridge.errors import SettingsError

ANN = apikey.make("ann", key_id="aaaa", secret=b"a" * 32)
OLD = apikey.make("ann", key_id="old0", secret=b"o" * 32)
BEN = apikey.make("ben", key_id="bbbb", secret=b"b" * 32)
KEYS = apikey.parse(f"# keys\n{ANN.line}\n\n{OLD.line}  # until Friday\n{BEN.line}\n")


def bearer(key: str) -> bytes:
    return f"Bearer {key}".encode()


def test_a_key_stands_for_its_principal_and_two_may_stand_for_one() -> None:
    assert [KEYS.authenticate(bearer(made.key)) for made in (ANN, OLD, BEN)] == [
        "ann",
        "ann",
        "ben",
    ]
    assert len(KEYS) == 3


def test_the_scheme_is_read_in_any_case() -> None:
    assert KEYS.authenticate(f"bEARER  {ANN.key}".encode()) == "ann"


@pytest.mark.parametrize(
    "authorization",
    [
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer kb_",
        b"Bearer kb_aaaa",
        b"Bearer kb_aaaa_",
        b"Basic " + ANN.key.encode(),
        ANN.key.encode(),
        bearer(ANN.key + "x"),
        bearer(ANN.key[:-1]),
        bearer(ANN.key.replace("aaaa", "bbbb")),
        bearer(ANN.key.replace("aaaa", "cccc")),
        bearer(ANN.key.replace("kb_", "kc_")),
        bearer(ANN.key.upper()),
        bearer(f"{ANN.key} {ANN.key}"),
        bearer(ANN.line.split()[1]),
        bearer(f"kb_aaaa_{ANN.line.split()[1]}"),
        b"Bearer kb_aaaa_\xff\x00",
    ],
)
def test_what_is_not_a_key_stands_for_nobody(authorization: bytes) -> None:
    assert KEYS.authenticate(authorization) is None


@given(st.binary(max_size=200))
def test_no_bytes_at_all_are_let_in_or_break_it(authorization: bytes) -> None:
    assert KEYS.authenticate(authorization) is None


@given(st.binary(min_size=32, max_size=32), st.from_regex(r"[a-z0-9]{4,32}", fullmatch=True))
def test_whatever_is_made_can_be_read_back(secret: bytes, key_id: str) -> None:
    made = apikey.make("team/a@b", key_id=key_id, secret=secret)

    assert apikey.parse(made.line).authenticate(bearer(made.key)) == "team/a@b"
    assert made.key.startswith("kb_")
    assert made.key.removeprefix(f"kb_{key_id}_") not in made.line


@pytest.mark.parametrize(
    ("text", "trouble"),
    [
        ("", "holds no key"),
        ("# nothing\n", "holds no key"),
        (f"{ANN.line}\nbbbb hush", "line 2: it has 2 words"),
        (f"AAAA {'0' * 64} ann", "line 1: its ID"),
        (f"\n\naaaa {'0' * 63} hush", "line 3: its hash"),
        (f"aaaa {'0' * 63}X hush", "its hash"),
        (f"aaaa {'0' * 64} hüsh", "its principal"),
        (f"{ANN.line}\n{ANN.line}", "line 2: its ID, the first word, is there already"),
        (f"{ANN.key} {'0' * 64} hush", "its ID"),
    ],
)
def test_a_line_that_cannot_be_read_is_named_and_not_shown(text: str, trouble: str) -> None:
    with pytest.raises(SettingsError) as refused:
        apikey.parse(text)

    assert trouble in str(refused.value)
    assert "hush" not in str(refused.value)
    assert ANN.key not in str(refused.value)


@pytest.mark.parametrize("principal", ["", "a b", "é", "x" * 129, "a\n", "#a"])
def test_a_principal_must_fit_a_header_and_a_line(principal: str) -> None:
    with pytest.raises(SettingsError, match="principal"):
        apikey.make(principal, key_id="aaaa", secret=b"s" * 32)


def test_neither_keys_nor_their_hashes_are_in_a_repr() -> None:
    assert ANN.key not in repr(ANN)
    assert "digest" not in repr(KEYS)


def test_secrets_are_compared_in_constant_time_also_for_an_id_that_is_not_there() -> None:
    """RELIABILITY G2: every way through `authenticate` past the scheme compares digests once."""
    tree = ast.parse(inspect.getsource(apikey))
    (function,) = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name == "authenticate"
    ]
    calls = [ast.unparse(n.func) for n in ast.walk(function) if isinstance(n, ast.Call)]
    branches = [n for n in ast.walk(function) if isinstance(n, ast.If)]

    assert calls.count("hmac.compare_digest") == 1
    assert [ast.unparse(n.test) for n in branches] == ["scheme.lower() != b'bearer'"]


def test_the_command_makes_a_key_and_its_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bridge", "keys", "new", "ann", "--json"],
        check=True,
        capture_output=True,
        text=True,
    )
    made = json.loads(done.stdout)

    assert re.fullmatch(r"kb_[0-9a-f]{8}_[A-Za-z0-9_-]{43}", made["key"])
    assert apikey.parse(made["line"]).authenticate(bearer(made["key"])) == "ann"
