"""Request IDs say when and where; chance is an argument."""

import uuid

from hypothesis import given
from hypothesis import strategies as st

from bridge import ids


@given(st.integers(0, 2**48 - 1), st.integers(0, 4095), st.integers(0, 2**62 - 1))
def test_an_id_is_a_uuid_of_version_7_that_tells_its_time_and_lane(
    time_ms: int, lane: int, chance: int
) -> None:
    made = ids.make(time_ms=time_ms, lane=lane, chance=chance)

    assert ids.parse(made) == ids.Address(time_ms=time_ms, lane=lane)
    assert uuid.UUID(made).version == 7
    assert uuid.UUID(made).variant == uuid.RFC_4122
    assert str(uuid.UUID(made)) == made


@given(st.text(max_size=50))
def test_other_text_is_not_ours(text: str) -> None:
    assert ids.parse(text) is None


def test_an_id_of_another_version_is_not_ours() -> None:
    assert ids.parse("01a0c450-6c7b-4fff-bfff-ffffffffffff") is None
    assert ids.parse("01a0c450-6c7b-7fff-cfff-ffffffffffff") is None
    assert ids.parse("01A0C450-6C7B-7FFF-BFFF-FFFFFFFFFFFF") is None


def test_an_id_of_ours_is_read_in_either_case_and_another_stands_as_it_is() -> None:
    made = ids.make(time_ms=1_764_000_000_000, lane=171, chance=1)

    assert ids.normalize(made.upper()) == made
    assert ids.normalize("Order-7") == "Order-7"
