"""Settings: every one has a default, a range, and an environment variable `BRIDGE_<NAME>`.

Pure: the environment is passed in. `BRIDGE_<NAME>_FILE` names a file that holds the value (for
secrets); reading that file is the caller's part, passed in as a function. Any librdkafka setting
passes through as `BRIDGE_KAFKA__<SETTING_WITH_UNDERSCORES>`. All problems are told at once.
"""

import re
from collections.abc import Callable, Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bridge import apikey
from bridge.errors import SettingsError

PREFIX = "BRIDGE_"
PASSED_THROUGH = "BRIDGE_KAFKA__"
OTHERS = frozenset({"BRIDGE_TEST_KAFKA"})
"""Variables with our prefix that are not settings of the product."""

NAMED_FILE = frozenset(
    {
        "sasl.oauthbearer.assertion.file",
        "sasl.oauthbearer.assertion.jwt.template.file",
        "sasl.oauthbearer.assertion.private.key.file",
    }
)
"""Settings of librdkafka whose own names end so, and whose values are paths: it reads those files."""

_LINK = re.compile(r"(^|_)(service_(host|port)(_.+)?|port_\d+_(tcp|udp)(_.+)?)$")
_LINKS = (
    " (Kubernetes sets such variables for a Service of that name: set `enableServiceLinks: false` "
    "in the pod's spec)"
)


class Settings(BaseModel):
    """What an operator can set; the description of each field is its documentation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kafka: Annotated[
        str, Field(min_length=1, description="Bootstrap servers, host:port, comma-separated.")
    ] = "127.0.0.1:9092"
    schemas: Annotated[
        str, Field(min_length=1, description="Folder with one folder of contracts per service.")
    ] = "schemas"
    host: Annotated[str, Field(min_length=1, description="Address that is listened on.")] = (
        "127.0.0.1"
    )
    port: Annotated[
        int, Field(ge=0, le=65_535, description="TCP port of the ingress; 0 picks a free one.")
    ] = 8080
    admin_port: Annotated[
        int,
        Field(
            ge=0,
            le=65_535,
            description="TCP port on which a worker tells how it is, and is paused; 0: none.",
        ),
    ] = 0
    processes: Annotated[
        int, Field(ge=1, le=64, description="Ingress processes that share the port.")
    ] = 1
    lanes: Annotated[
        str,
        Field(
            pattern=r"^$|^\d{1,4}(,\d{1,4})*$",
            description="Lanes that this ingress takes, comma-separated; empty: one at random.",
        ),
    ] = ""
    api_keys: Annotated[
        str | None,
        Field(repr=False, description="Who may ask: a line per key; none: everybody may."),
    ] = None
    waiters: Annotated[
        int, Field(ge=1, le=1_000_000, description="Clients that may wait at once, per process.")
    ] = 10_000
    batch_lines: Annotated[
        int, Field(ge=1, le=10_000, description="Lines of one batch that are worked on at once.")
    ] = 256
    max_body_bytes: Annotated[
        int, Field(ge=1, le=64 << 20, description="Largest request body, in bytes.")
    ] = 1_000_000
    max_depth: Annotated[
        int, Field(ge=1, le=512, description="Deepest nesting of a JSON body.")
    ] = 64
    max_header_bytes: Annotated[
        int, Field(ge=1024, le=1 << 20, description="Largest sum of header names and values.")
    ] = 32_768
    max_uri_bytes: Annotated[
        int, Field(ge=256, le=1 << 16, description="Longest path and query, in bytes.")
    ] = 8192
    max_headers: Annotated[int, Field(ge=10, le=10_000, description="Most header fields.")] = 100
    head_s: Annotated[
        float,
        Field(gt=0, le=3600, description="Seconds for the head of a request to come."),
    ] = 10.0
    body_s: Annotated[
        float,
        Field(
            gt=0,
            le=3600,
            description="Seconds for the body of a request; of a batch: for each piece of it.",
        ),
    ] = 30.0
    connections: Annotated[
        int, Field(ge=1, le=1_000_000, description="Clients connected at once, per process.")
    ] = 16_384
    max_wait_s: Annotated[
        float, Field(gt=0, le=3600, description="Longest wait a client may ask for, in seconds.")
    ] = 300.0
    no_worker_s: Annotated[
        float,
        Field(
            ge=0,
            le=86_400,
            description="Seconds without a worker after which nobody may wait for one; 0: never.",
        ),
    ] = 15.0
    keep_alive_s: Annotated[
        float,
        Field(gt=0, le=3600, description="Seconds without an event after which a stream says so."),
    ] = 15.0
    probe_s: Annotated[
        float, Field(gt=0, le=3600, description="Seconds between probes of the own lanes.")
    ] = 60.0
    claims_dir: Annotated[
        str,
        Field(description="Folder for the index of Idempotency-Keys; empty: kept in memory."),
    ] = ""
    grace_s: Annotated[
        float, Field(ge=0, le=600, description="Seconds a stopping process has to finish.")
    ] = 10.0
    log_level: Annotated[
        str,
        Field(pattern="^(debug|info|warning|error)$", description="Least severe line to log."),
    ] = "info"
    kafka_options: Annotated[
        dict[str, str],
        Field(description="librdkafka settings, each as BRIDGE_KAFKA__<SETTING_WITH_UNDERSCORES>."),
    ] = {}

    def client_config(self) -> dict[str, str | int | bool]:
        """Return what every Kafka client gets: the servers and what was passed through."""
        return {"bootstrap.servers": self.kafka, **self.kafka_options}


def load(
    environ: Mapping[str, str],
    read_file: Callable[[str], str],
    flags: Mapping[str, object] | None = None,
) -> Settings:
    """Read settings from an environment; flags that are not None win over it.

    Raises:
        SettingsError: One or more values are not usable; the message names each.
    """
    values, problems = _collect(environ, read_file)
    values.update({name: value for name, value in (flags or {}).items() if value is not None})
    try:
        settings = Settings.model_validate(values)
    except ValidationError as wrong:
        problems += [_sentence(error) for error in wrong.errors()]
        raise SettingsError("; ".join(problems)) from None
    if settings.api_keys is not None:
        try:
            apikey.parse(settings.api_keys)
        except SettingsError as wrong:
            problems.append(str(wrong))
    if problems:
        raise SettingsError("; ".join(problems))
    return settings


def is_set(name: str, environ: Mapping[str, str]) -> bool:
    """Tell whether an environment says a setting, in itself or in a file."""
    variable = PREFIX + name.upper()
    return variable in environ or f"{variable}_FILE" in environ


def _collect(
    environ: Mapping[str, str], read_file: Callable[[str], str]
) -> tuple[dict[str, object], list[str]]:
    values: dict[str, object] = {}
    options: dict[str, str] = {}
    problems: list[str] = []
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or variable in OTHERS:
            continue
        name, value = variable, text
        if name.endswith("_FILE") and _option(name) not in NAMED_FILE:
            name = name.removesuffix("_FILE")
            try:
                value = read_file(text).rstrip()  # what comes before it counts: lines are told
            except OSError as error:
                problems.append(f"{variable}={text}: the file cannot be read ({error.strerror})")
                continue
        if name.startswith(PASSED_THROUGH):
            options[_option(name)] = value
        else:
            values[name.removeprefix(PREFIX).lower()] = value
    if options:
        values["kafka_options"] = options
    return values, problems


def _option(variable: str) -> str:
    """Return librdkafka's name of a setting that passes through."""
    return variable.removeprefix(PASSED_THROUGH).lower().replace("_", ".")


def _sentence(error: Mapping[str, object]) -> str:
    place = error["loc"]
    name = str(place[0]) if isinstance(place, tuple) and place else "?"
    if error["type"] == "extra_forbidden":
        said = f"{PREFIX}{name.upper()} is no setting of the bridge: see docs/reference/settings.md"
        return said + (_LINKS if _LINK.search(name) else "")
    said = f"{PREFIX}{name.upper()}={error['input']}: {str(error['msg']).lower()}"
    return said + (_LINKS if str(error["input"]).startswith("tcp://") else "")
