"""What a client's headers ask for."""

import pytest

from bridge.ingress.headers import Preference, parse_prefer


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (None, Preference()),
        ("", Preference()),
        ("wait=10", Preference(10, applied="wait=10")),
        ("Wait = 10", Preference(10, applied="wait=10")),
        ('wait="10"', Preference(10, applied="wait=10")),
        ("wait=0.5", Preference(0.5, applied="wait=0.5")),
        ("wait=1000", Preference(300, applied="wait=300")),
        ("wait=1, wait=2", Preference(1, applied="wait=1")),
        ("wait=-1", Preference()),
        ("wait=abc", Preference()),
        ("wait", Preference()),
        ("respond-async", Preference(0, is_async=True, applied="respond-async")),
        ("respond-async, wait=5", Preference(5, is_async=True, applied="respond-async, wait=5")),
        (
            "return=minimal; x=y, respond-async;a",
            Preference(0, is_async=True, applied="respond-async"),
        ),
    ],
)
def test_prefer_is_read_as_rfc_7240_asks(text: str | None, wanted: Preference) -> None:
    assert parse_prefer(text, max_wait_s=300) == wanted
