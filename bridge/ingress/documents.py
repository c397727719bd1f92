"""What the ingress tells about its services: directory, schemas, OpenAPI."""

import json
from collections.abc import Mapping
from typing import Any

from bridge.codec import Schema
from bridge.forward import MAX_VALUE_BYTES
from bridge.service import FAILURE, PROGRESS, Service

_WAIT = {
    "name": "Prefer",
    "in": "header",
    "description": "`wait=SECONDS` waits so long, `respond-async` not at all (RFC 7240).",
    "schema": {"type": "string"},
    "example": "wait=10",
}
_DEADLINE = {
    "name": "Bridge-Deadline",
    "in": "header",
    "description": "Seconds from receipt after which no work is worth doing.",
    "schema": {"type": "number", "exclusiveMinimum": 0},
}
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same request, sent again with the same key, is worked on once.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 257},
    "example": '"8e03978e-40d5-43e8-bc93-6894a57f9324"',
}
_REPLAYED = {
    "description": "The answer is about the request that an earlier POST with this key has made.",
    "schema": {"const": "true"},
}
_REQUEST_ID = {
    "name": "request_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "maxLength": 128},
}
_PROBLEM = {
    "description": "What went wrong (RFC 9457); `outcome` says what is known of the request.",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
_UNAUTHENTICATED = {
    **_PROBLEM,
    "headers": {"WWW-Authenticate": {"schema": {"const": "Bearer"}}},
}
_PENDING = {
    "description": "Taken, and not finished yet: `Location` is where the reply will be.",
    "headers": {"Location": {"schema": {"type": "string"}}},
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Pending"}}},
}
_CANCELLED = {
    "description": "It is cancelled, for every reader and for good.",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Pending"}}},
}
_COMPONENTS: dict[str, object] = {
    "Pending": {
        "type": "object",
        "required": ["request_id", "state"],
        "properties": {"request_id": {"type": "string"}, "state": {"type": "string"}},
    },
    "Problem": {
        "type": "object",
        "required": ["type", "title", "status", "detail", "code", "outcome", "retryable"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "code": {"type": "string"},
            "outcome": {
                "enum": ["not_accepted", "unknown", "accepted", "failed", "expired", "cancelled"]
            },
            "retryable": {"type": "boolean"},
            "request_id": {"type": "string"},
            "errors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["pointer", "reason"],
                    "properties": {
                        "pointer": {"type": "string"},
                        "reason": {"type": "string"},
                    },
                },
            },
            "state": {"type": "string"},
            "details": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    },
}
_TAKE_CODES = (
    "400",
    "404",
    "406",
    "408",
    "409",
    "410",
    "413",
    "414",
    "415",
    "422",
    "431",
    "500",
    "502",
    "503",
    "504",
)
_BATCH_CODES = ("400", "404", "406", "408", "414", "415", "431", "500", "503")
_LINES: dict[str, object] = {"application/x-ndjson": {"schema": {}}}
_LOOK_CODES = (
    "400",
    "404",
    "406",
    "408",
    "409",
    "410",
    "414",
    "422",
    "431",
    "500",
    "502",
    "503",
    "504",
)
_EVENT_CODES = ("400", "404", "406", "408", "410", "414", "431", "500", "503")
_EVENTS: dict[str, object] = {"text/event-stream": {"schema": {}}, **_LINES}
_LAST_EVENT_ID = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The `id` of the event that was told last.",
    "schema": {"type": "string", "pattern": "^[0-9]{1,19}$"},
}
_CANCEL_CODES = ("400", "404", "406", "408", "409", "410", "414", "431", "500", "503")


_SHOWN = ("effects",)
"""Settings that are shown as they stand."""


def describe(service: Service) -> dict[str, object]:
    """Return a service's row in the directory."""
    return {
        "name": service.name,
        "reply": service.kind,
        "key": service.key,
        "wait_s": service.wait_s,
        "deadline_s": service.deadline_s,
        **{name: getattr(service, name) for name in _SHOWN},
        "worker": {**service.worker.model_dump(), "group": service.group},
        "topics": {
            "requests": service.requests_topic,
            "replies": service.replies_topic,
            **service.topics.model_dump(),
        },
        "http": {
            "errors": service.http_errors,
            "idempotency": "required" if service.wants_key else "optional",
            "forward": service.forward,
            "return": service.returned,
        },
        "request_schema_id": service.request.id,
        "reply_schema_id": None if service.reply is None else service.reply.id,
    }


def contracts(service: Service) -> dict[str, object]:
    """Return a service's schemas as its author wrote them."""
    reply = None if service.reply is None else service.reply.source
    return {"request_schema": service.request.source, "reply_schema": reply}


def schemas(services: Mapping[str, Service]) -> dict[int, str]:
    """Return every schema's text by ID."""
    found: dict[int, str] = {s.id: json.dumps(s.source) for s in (FAILURE, PROGRESS)}
    for service in services.values():
        for schema in (service.request, service.reply):
            if schema is not None:
                found[schema.id] = json.dumps(schema.source)
    return found


def openapi(services: Mapping[str, Service], *, has_keys: bool = False) -> dict[str, object]:
    """Make the OpenAPI 3.1 document: operations per service to ask, look up and cancel."""
    paths: dict[str, object] = {}
    components = dict(_COMPONENTS)
    for service in services.values():
        base = f"/v1/services/{service.name}/requests"
        paths[base] = {"post": _take(service, components)}
        paths[f"{base}/batch"] = {"post": _batch(service)}
        paths[f"{base}/{{request_id}}/events"] = {"get": _events(service)}
        paths[f"{base}/{{request_id}}"] = {
            "get": _look(service, components),
            "delete": _cancel(service),
        }
    document: dict[str, object] = {
        "openapi": "3.1.0",
        "info": {"title": "Kafka bridge", "version": "1"},
        "paths": paths,
        "components": {"schemas": components},
    }
    return _with_keys(document) if has_keys else document


def _with_keys(document: dict[str, object]) -> dict[str, object]:
    """Say that every operation needs a key, and what it answers without one."""
    paths, components = document["paths"], document["components"]
    assert isinstance(paths, dict)  # noqa: S101 - made above
    assert isinstance(components, dict)  # noqa: S101 - made above
    for operations in paths.values():
        for operation in operations.values():
            operation["responses"]["401"] = _UNAUTHENTICATED
    schemes = {"apiKey": {"type": "http", "scheme": "bearer", "description": "`kb_…`"}}
    return {
        **document,
        "components": {**components, "securitySchemes": schemes},
        "security": [{"apiKey": []}],
    }


def _take(service: Service, components: dict[str, object]) -> dict[str, object]:
    responses: dict[str, Any] = dict.fromkeys((*_TAKE_CODES, *_own_codes(service)), _PROBLEM)
    responses["202"] = _PENDING
    if service.kind != "none":
        reply = _reply(service, components)
        responses["200"] = {**reply, "content": {**reply["content"], **_EVENTS}}
    responses = {status: _with_replayed(each) for status, each in responses.items()}
    return {
        "operationId": f"ask_{service.name}",
        "tags": [service.name],
        "summary": f"Ask {service.name}",
        "parameters": [_WAIT, _DEADLINE, _key(service), *_forwarded(service)],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": _schema(service, service.request, "request", components)
                },
                "avro/binary": {"schema": {}},
            },
        },
        "responses": responses,
    }


def _own_codes(service: Service) -> list[str]:
    """Return the statuses that a service gives to its handler's codes."""
    return [str(status) for status in sorted(set(service.http_errors.values()))]


def _with_replayed(response: dict[str, Any]) -> dict[str, Any]:
    headers = response.get("headers", {})
    return {**response, "headers": {**headers, "Idempotency-Replayed": _REPLAYED}}


def _batch(service: Service) -> dict[str, object]:
    """Describe a batch; OpenAPI 3.1 has no schema for the lines of a document."""
    results = {
        "description": 'One result a line, as it comes, then `{"summary": …}`.',
        "content": _LINES,
    }
    return {
        "operationId": f"ask_{service.name}_in_batch",
        "tags": [service.name],
        "summary": f"Ask {service.name} many times: one request a line",
        "parameters": [_WAIT, _DEADLINE, _key(service)],
        "requestBody": {"required": True, "content": _LINES},
        "responses": {"200": results, **dict.fromkeys(_BATCH_CODES, _PROBLEM)},
    }


def _look(service: Service, components: dict[str, object]) -> dict[str, object]:
    responses: dict[str, object] = {"200": _reply(service, components), "202": _PENDING}
    responses.update(dict.fromkeys((*_LOOK_CODES, *_own_codes(service)), _PROBLEM))
    return {
        "operationId": f"look_up_{service.name}",
        "tags": [service.name],
        "summary": f"State and reply of a request to {service.name}",
        "parameters": [_REQUEST_ID, _WAIT],
        "responses": responses,
    }


def _events(service: Service) -> dict[str, object]:
    responses: dict[str, object] = {
        "200": {"description": "The events, as they come.", "content": _EVENTS},
        "204": {"description": "There are no more."},
    }
    responses.update(dict.fromkeys(_EVENT_CODES, _PROBLEM))
    return {
        "operationId": f"follow_{service.name}",
        "tags": [service.name],
        "summary": f"What a request to {service.name} does, as it does it",
        "parameters": [_REQUEST_ID, _LAST_EVENT_ID],
        "responses": responses,
    }


def _forwarded(service: Service) -> list[dict[str, object]]:
    schema = {"type": "string", "maxLength": MAX_VALUE_BYTES}
    return [{"name": name, "in": "header", "schema": schema} for name in service.forward]


def _cancel(service: Service) -> dict[str, object]:
    responses: dict[str, object] = {"200": _CANCELLED}
    responses.update(dict.fromkeys(_CANCEL_CODES, _PROBLEM))
    return {
        "operationId": f"cancel_{service.name}",
        "tags": [service.name],
        "summary": f"Cancel a request to {service.name}",
        "parameters": [_REQUEST_ID],
        "responses": responses,
    }


def _key(service: Service) -> dict[str, object]:
    return {**_KEY, "required": service.wants_key}


def _reply(service: Service, components: dict[str, object]) -> dict[str, Any]:
    schema = _schema(service, service.reply, "reply", components)
    if service.kind == "stream":
        schema = {
            "type": "object",
            "required": ["parts", "reply"],
            "properties": {"parts": {"type": "array", "items": schema}, "reply": {}},
        }
    content: dict[str, object] = {"application/json": {"schema": schema}}
    if service.kind == "one":
        content["avro/binary"] = {"schema": {}}
    return {
        "description": "The reply.",
        "headers": {
            name: {"schema": {"type": "string"}} for name in ("Request-Id", *service.returned)
        },
        "content": content,
    }


def _schema(
    service: Service, schema: Schema | None, role: str, components: dict[str, object]
) -> dict[str, object]:
    """Return a contract as JSON Schema; the named types that it refers to become components."""
    if schema is None:
        return {}
    prefix = f"{service.name}.{role}."
    found = schema.json_schema(refs=f"#/components/schemas/{prefix}")
    named = found.pop("$defs", {})
    if isinstance(named, dict):
        components.update({prefix + name: value for name, value in named.items()})
    return found
