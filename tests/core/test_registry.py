"""Services out of folders; no broker."""

from pathlib import Path

import pytest

from bridge import registry, service
from bridge.codec import Schema
from bridge.errors import ContractError, SettingsError

TEXT = '{"type": "record", "name": "%s", "fields": [{"name": "a", "type": "string"}]}'


def write(folder: Path, name: str, **files: str) -> None:
    (folder / name).mkdir()
    for stem, text in files.items():
        suffix = "toml" if stem == "service" else "avsc"
        (folder / name / f"{stem}.{suffix}").write_text(text, encoding="utf-8")


def test_each_folder_with_a_request_schema_is_a_service(tmp_path: Path) -> None:
    write(tmp_path, "b", request=TEXT % "B", service='reply = "none"')
    write(tmp_path, "a", request=TEXT % "A", reply=TEXT % "Reply")
    write(tmp_path, "notes")
    (tmp_path / "README.md").touch()

    services = registry.load_services(tmp_path)

    assert list(services) == ["a", "b"]
    assert services["b"].kind == "none"


def test_schemas_are_found_by_their_id_the_bridges_own_too(tmp_path: Path) -> None:
    write(tmp_path, "a", request=TEXT % "A", reply=TEXT % "Reply")
    write(tmp_path, "b", request=TEXT % "B", reply=TEXT % "Reply")
    services = registry.load_services(tmp_path)

    found = registry.schemas_by_id(services)

    assert len(found) == 5
    assert found[service.FAILURE.id] is service.FAILURE
    assert found[service.PROGRESS.id] is service.PROGRESS
    assert found[services["b"].request.id] is services["b"].request


def test_a_missing_folder_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="BRIDGE_SCHEMAS"):
        registry.load_services(tmp_path / "none")


def test_a_file_for_a_folder_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(SettingsError, match="BRIDGE_SCHEMAS"):
        registry.load_services(tmp_path / "file")


def test_an_empty_folder_says_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"write <service>/request\.avsc"):
        registry.load_services(tmp_path)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"request": "{", "reply": "{}"}, r"a/request\.avsc: not JSON"),
        ({"request": TEXT % "A"}, r"a/reply\.avsc is missing"),
        ({"reply": TEXT % "A"}, r"a/reply\.avsc has no request\.avsc"),
        ({"service": ""}, r"a/service\.toml has no request\.avsc"),
        ({"request": TEXT % "A", "reply": TEXT % "R", "service": "x = 1"}, r"a/service\.toml: x"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, files: dict[str, str], said: str) -> None:
    write(tmp_path, "a", **files)

    with pytest.raises(ContractError, match=said):
        registry.load_services(tmp_path)


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    write(tmp_path, "a")
    (tmp_path / "a" / "request.avsc").write_bytes(b'"\xff"')

    with pytest.raises(ContractError, match=r"a/request\.avsc: byte 1 is not UTF-8"):
        registry.load_services(tmp_path)


def test_a_folder_in_a_files_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "a" / "request.avsc").mkdir(parents=True)

    with pytest.raises(ContractError, match=r"a/request\.avsc: "):
        registry.load_services(tmp_path)


def test_a_bad_name_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "Capital", request=TEXT % "A", reply=TEXT % "R")

    with pytest.raises(ContractError, match="service name 'Capital'"):
        registry.load_services(tmp_path)


def test_names_that_kafka_takes_for_the_same_are_refused(tmp_path: Path) -> None:
    for name in ("a.b", "a_b"):
        write(tmp_path, name, request=TEXT % "A", reply=TEXT % "R")

    with pytest.raises(ContractError, match=r"services a\.b and a_b"):
        registry.load_services(tmp_path)


def test_two_schemas_of_one_id_are_refused() -> None:
    one, two = (Schema.load(TEXT % name, where=f"{name}.avsc") for name in ("A", "B"))
    two.id = one.id  # 2**-31 of all pairs come to this by themselves

    with pytest.raises(ContractError, match=r"B\.avsc and A\.avsc differ but share the schema ID"):
        service.index_schemas([one, two])
