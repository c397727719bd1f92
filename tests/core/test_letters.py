"""How dead letters and times are printed and read."""

from pathlib import Path

import pytest

from bridge.cli.letters import count, format_dump, format_found, format_letters
from bridge.cli.times import format_time, parse_time
from bridge.envelope import Record, Request
from bridge.redrive import Letter, State, read_letter
from bridge.registry import load_services
from bridge.replay import Found, Outcome
from tests.deadletters import make

ECHO = load_services(Path(__file__).parents[1] / "services" / "schemas")["echo"]
NOW_MS = 1_800_000_000_000


def letter(record: Record) -> Letter:
    return read_letter(record)


def test_a_terminal_is_not_obeyed_to_what_a_letter_says() -> None:
    hostile = letter(make("echo", Request(request_id="a\x1b[2J"), error="x\n\x1b]0;y\x07"))

    (line,) = format_letters([(hostile, State.WAITING)], width=None, has_head=False)

    assert line.isprintable()
    assert "a\\x1b[2J" in line
    assert line.endswith("x\\n\\x1b]0;y\\x07")


def test_an_error_is_cut_where_the_terminal_ends_and_nowhere_else() -> None:
    long = letter(make("echo", Request(request_id="a"), error="e" * 500))

    cut = format_letters([(long, State.WAITING)], width=80, has_head=True)
    whole = format_letters([(long, State.WAITING)], width=None, has_head=False)

    assert [len(line) <= 80 for line in cut] == [True, True]
    assert cut[1].endswith("e…")
    assert whole[0].endswith("e" * 500)


def test_nothing_is_no_line() -> None:
    assert format_letters([], width=80, has_head=False) == []


def test_a_value_of_the_contract_is_shown_as_json_and_another_as_bytes_with_the_reason() -> None:
    good = make("echo", Request(request_id="a"), ECHO.encode({"text": "hi"}))
    bad = make("echo", Request(request_id="b"), b"\x00garbage")

    shown = [
        format_found(Found(each, letter(each), State.WAITING, [0]), ECHO) for each in (good, bad)
    ]

    assert shown[0][-1] == '{"text":"hi","sleep_s":0.0,"do":"reply"}'
    assert "schema ID" in shown[1][-2]
    assert shown[1][-1].endswith(".garbage")


def test_the_counts_add_up() -> None:
    one = letter(make("echo", Request(request_id="a")))

    counts = count(Outcome([(one, state) for state in State], others=2))

    assert counts.pop("selected") == sum(counts.values()) == len(State) + 2
    assert counts["unreadable"] == 3


def test_bytes_are_dumped_sixteen_a_line() -> None:
    assert format_dump(b"\x00A" * 9) == [
        f"00000000  {' '.join(['00 41'] * 8)}  {'.A' * 8}",
        f"00000010  {'00 41':<47}  .A",
    ]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("-2h", NOW_MS - 7_200_000),
        ("90s", NOW_MS - 90_000),
        ("1970-01-01T00:01:00Z", 60_000),
        ("1970-01-01T00:01", 60_000),
        ("1970-01-01T01:01+01:00", 60_000),
        ("1970-01-02", 86_400_000),
    ],
)
def test_a_time_is_iso_or_so_long_ago(text: str, wanted: int) -> None:
    assert parse_time(text, now_ms=NOW_MS) == wanted


@pytest.mark.parametrize("text", ["", "yesterday", "2h30m", "-2w", "12:00"])
def test_another_text_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="want ISO 8601"):
        parse_time(text, now_ms=NOW_MS)


def test_a_time_is_printed_in_utc_and_one_of_no_calendar_as_a_number() -> None:
    assert format_time(60_000) == "1970-01-01T00:01:00Z"
    assert format_time(1 << 62) == str(1 << 62)
