"""Headers that a service lets through."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import forward
from bridge.errors import MalformedHeaderError

NEVER = (
    *("authorization", "cookie", "set-cookie", "proxy-authorization", "www-authenticate"),
    *("connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "host"),
    *("content-length", "content-type", "content-encoding", "location", "date", "server"),
    *("bridge-principal", "bridge-anything", "x-bridge-x", "kafka_replytopic", "traceparent"),
    *("tracestate", "spring_json_header_types", "sec-fetch-mode"),
)


@pytest.mark.parametrize("name", [*NEVER, "", "X-Tenant", "a b", "a:b", "a\n", "é", "x" * 101])
def test_what_may_never_go_through_is_refused(name: str) -> None:
    for check in (forward.check_forwarded, forward.check_returned):
        with pytest.raises(ValueError, match=r"want|never"):
            check(name)


@pytest.mark.parametrize(
    "name", ["request-id", "retry-after", "cache-control", "access-control-allow-origin", "link"]
)
def test_a_reply_may_not_say_what_the_bridge_or_a_browser_acts_on(name: str) -> None:
    assert forward.check_forwarded(name) == name
    with pytest.raises(ValueError, match="no reply may set"):
        forward.check_returned(name)


def test_names_are_listed_once_and_not_without_end() -> None:
    assert forward.check_list(["a", "b"]) == ["a", "b"]
    with pytest.raises(ValueError, match="twice"):
        forward.check_list(["a", "a"])
    with pytest.raises(ValueError, match="33 names: want at most 32"):
        forward.check_list([str(n) for n in range(33)])


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\0b", "é", "\x7f", "x" * 4097, "\ud800"])
def test_a_value_that_could_end_a_line_goes_nowhere(value: str) -> None:
    with pytest.raises(MalformedHeaderError, match="x-a: it has"):
        forward.take_request(["x-a"], {"x-a": value})
    taken, dropped = forward.take_reply(["x-a"], [("x-a", value)])
    assert (taken, len(dropped)) == ([], 1)
    on_wire = value.encode(errors="surrogatepass")
    assert forward.read_record(["x-a"], [("x-a", on_wire)]) == {}


def test_only_what_is_named_is_picked() -> None:
    headers = {"x-a": "1", "cookie": "c", "x-b": "2"}

    assert forward.take_request(("x-b", "x-c"), headers) == (("x-b", b"2"),)
    assert forward.read_record(("x-b", "x-c"), [("x-a", b"1"), ("x-b", b"2"), ("x-b", b"3")]) == {
        "x-b": "3"
    }


def test_a_reply_is_told_what_was_left_out() -> None:
    said: list[tuple[object, object]] = [("X-A", "1"), ("x-b", "2"), ("x-a", 3), (4, "5")]

    taken, dropped = forward.take_reply(("x-a",), said)

    assert taken == [("x-a", b"1")]
    assert dropped == [
        "'x-b' is not in http.return",
        "x-a: it is a int: want text",
        "'4' is not in http.return",
    ]


@given(st.text())
def test_whatever_goes_out_comes_back_as_it_was(value: str) -> None:
    if forward.find_fault(value) is None:
        ((name, on_wire),) = forward.take_request(["x-a"], {"x-a": value})
        assert forward.read_record(["x-a"], [(name, on_wire)]) == {"x-a": value}
