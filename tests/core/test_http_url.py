"""The URL of an application: what is none is refused before anything starts."""

import pytest

from bridge.errors import SettingsError
from bridge.worker.http import check_url


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1/x",
        "127.0.0.1:9000",
        "http://",
        "http://127.0.0.1:x/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:0/",
        "http://127.0.0.1/#part",
        "http://127.0.0.1/a b",
        "http://127.0.0.1/\n",
        "http://\u00fc/",
        "http://[::1",
        "",
    ],
)
def test_what_is_no_url_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(SettingsError, match=r"^--http .*want http://HOST:PORT/PATH") as refused:
        check_url(url)

    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("url", ["http://a:secret@127.0.0.1/", "http://a:secret@127.0.0.1:x/"])
def test_credentials_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(SettingsError, match="credentials") as refused:
        check_url(url)

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9000/a?b=c@d", "https://app", "HTTP://app:80", "http://[::1]:9000/"]
)
def test_what_is_one_is_taken(url: str) -> None:
    check_url(url)
