"""Settings: from an environment that is passed in; all problems at once."""

import pytest

from bridge.errors import SettingsError
from bridge.settings import Settings, load


def no_file(path: str) -> str:
    raise FileNotFoundError(2, "No such file or directory", path)


def test_an_empty_environment_gives_the_defaults() -> None:
    assert load({"PATH": "/bin"}, no_file) == Settings()


def test_every_setting_is_an_environment_variable_and_a_flag_wins() -> None:
    settings = load(
        {"BRIDGE_PORT": "9000", "BRIDGE_KAFKA": "a:1"}, no_file, {"port": 9001, "kafka": None}
    )

    assert (settings.port, settings.kafka) == (9001, "a:1")


def test_librdkafka_settings_pass_through_and_secrets_come_from_files() -> None:
    settings = load(
        {
            "BRIDGE_KAFKA": "a:1",
            "BRIDGE_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
            "BRIDGE_KAFKA__SASL_PASSWORD_FILE": "/run/secret",
        },
        {"/run/secret": "hush\n"}.__getitem__,
    )

    assert settings.client_config() == {
        "bootstrap.servers": "a:1",
        "security.protocol": "SASL_SSL",
        "sasl.password": "hush",
    }


def test_a_bad_file_of_keys_is_told_by_its_line_and_not_shown() -> None:
    with pytest.raises(SettingsError) as refused:
        load({"BRIDGE_API_KEYS_FILE": "/keys"}, {"/keys": "\n# keys\nkb_a_hush\n"}.__getitem__)

    assert "BRIDGE_API_KEYS, line 3: it has 1 words" in str(refused.value)
    assert "hush" not in str(refused.value)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as refused:
        load({"BRIDGE_PORT": "70000", "BRIDGE_PROT": "1", "BRIDGE_KAFKA_FILE": "/none"}, no_file)

    assert "BRIDGE_PORT=70000" in str(refused.value)
    assert "BRIDGE_PROT is no setting" in str(refused.value)
    assert "/none: the file cannot be read" in str(refused.value)
