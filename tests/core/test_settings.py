"""Settings: from an environment that is passed in; all problems at once."""

import pytest

from bridge.errors import SettingsError
from bridge.settings import Settings, is_set, load


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


@pytest.mark.parametrize(
    "name", ["ASSERTION_FILE", "ASSERTION_JWT_TEMPLATE_FILE", "ASSERTION_PRIVATE_KEY_FILE"]
)
def test_librdkafkas_own_names_that_end_in_file_are_no_files_of_ours(name: str) -> None:
    settings = load({f"BRIDGE_KAFKA__SASL_OAUTHBEARER_{name}": "/run/key"}, no_file)

    option = f"sasl.oauthbearer.{name.lower().replace('_', '.')}"
    assert settings.kafka_options == {option: "/run/key"}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("BRIDGE_PORT", "tcp://10.0.0.7:8080"),
        ("BRIDGE_SERVICE_HOST", "10.0.0.7"),
        ("BRIDGE_PORT_8080_TCP_ADDR", "10.0.0.7"),
        ("BRIDGE_KAFKA_SERVICE_PORT_HTTP", "8080"),
    ],
)
def test_what_kubernetes_puts_into_an_environment_is_told_as_such(
    variable: str, value: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        load({variable: value}, no_file)

    assert "enableServiceLinks: false" in str(refused.value)


def test_a_wrong_setting_of_the_operators_own_is_not_blamed_on_kubernetes() -> None:
    with pytest.raises(SettingsError) as refused:
        load({"BRIDGE_PORT": "x", "BRIDGE_PROT": "1"}, no_file)

    assert "Kubernetes" not in str(refused.value)


def test_an_empty_host_is_refused() -> None:  # it would be every address of the machine
    with pytest.raises(SettingsError):
        load({"BRIDGE_HOST": ""}, no_file)


def test_a_setting_is_said_in_itself_or_in_a_file() -> None:
    assert is_set("kafka", {"BRIDGE_KAFKA_FILE": "/f"})
    assert is_set("kafka", {"BRIDGE_KAFKA": "a:1"})
    assert not is_set("kafka", {"BRIDGE_KAFKA__X": "1"})
