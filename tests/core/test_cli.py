"""What a wrong command line gets: one line, exit 2."""

import sys

import pytest

from bridge.cli import main


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("ingress --nope", "--nope: see `kbridge ingress --help`"),
        ("ingress --port abc", "--port"),
        ("worker", "SERVICE"),
        ("nope", "nope"),
        ("worker none", "no service none"),
        ("dead list none", "no service none"),
        ("dead redrive greeter", "one of --id, --reason and --all"),
    ],
)
def test_wrong_use_is_told_in_one_line(
    command: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["kbridge", *command.split()])

    with pytest.raises(SystemExit) as ended:
        main()

    captured = capsys.readouterr()
    assert ended.value.code == 2
    assert captured.out == ""
    assert captured.err.startswith("kbridge: ")
    assert captured.err.count("\n") == 1
    assert said in captured.err


def test_no_command_shows_the_help(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["kbridge"])

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 2
    assert "Commands" in capsys.readouterr().err
