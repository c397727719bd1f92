"""What `/openapi.json` says is what is answered."""

import re
from typing import Any, cast

from bridge import service
from bridge.ingress.documents import openapi
from bridge.service import Service
from bridge.telling import OVER

SCHEMA = '{"type":"record","name":"P","namespace":"n","fields":[{"name":"t","type":"string"}]}'


def load(settings: str = "") -> Service:
    return service.load("s", request=SCHEMA, reply=SCHEMA, settings=settings)


def paths(loaded: Service) -> dict[str, Any]:
    return cast(dict[str, Any], openapi({"s": loaded})["paths"])


def test_the_statuses_that_a_service_gives_to_its_codes_are_there() -> None:
    found = paths(load("[http.errors]\nteapot = 418\nbusy = 429\n"))

    base = "/v1/services/s/requests"
    for operation in (found[base]["post"], found[f"{base}/{{request_id}}"]["get"]):
        assert {"418", "429"} <= set(operation["responses"])
    assert "418" not in paths(load())[base]["post"]["responses"]


def test_the_id_of_every_event_fits_its_pattern() -> None:
    operation = paths(load())["/v1/services/s/requests/{request_id}/events"]["get"]
    (last,) = (each for each in operation["parameters"] if each["name"] == "Last-Event-ID")

    assert re.fullmatch(last["schema"]["pattern"], str(OVER))


def test_every_answer_to_a_post_may_be_about_an_earlier_request() -> None:
    responses = paths(load())["/v1/services/s/requests"]["post"]["responses"]

    assert all("Idempotency-Replayed" in each["headers"] for each in responses.values())
