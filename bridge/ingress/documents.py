"""What the ingress tells about its services: directory, schemas, OpenAPI, and a page for people."""

import html
import json
from collections.abc import Mapping

from bridge.codec import Schema
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
_PENDING = {
    "description": "Taken, and not finished yet: `Location` is where the reply will be.",
    "headers": {"Location": {"schema": {"type": "string"}}},
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
            "details": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    },
}
_TAKE_CODES = (
    "400",
    "404",
    "406",
    "409",
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
_LOOK_CODES = ("400", "404", "406", "409", "410", "414", "422", "431", "500", "502", "503", "504")


def describe(service: Service) -> dict[str, object]:
    """Return a service's row in the directory."""
    return {
        "name": service.name,
        "reply": service.kind,
        "key": service.key,
        "wait_s": service.wait_s,
        "deadline_s": service.deadline_s,
        "topics": {"requests": service.requests_topic, "replies": service.replies_topic},
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


def openapi(services: Mapping[str, Service]) -> dict[str, object]:
    """Make the OpenAPI 3.1 document: one operation per service to ask, one to look up."""
    paths: dict[str, object] = {}
    components = dict(_COMPONENTS)
    for service in services.values():
        base = f"/v1/services/{service.name}/requests"
        paths[base] = {"post": _take(service, components)}
        paths[f"{base}/{{request_id}}"] = {"get": _look(service, components)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Kafka bridge", "version": "1"},
        "paths": paths,
        "components": {"schemas": components},
    }


def _take(service: Service, components: dict[str, object]) -> dict[str, object]:
    responses: dict[str, object] = {"202": _PENDING}
    if service.kind != "none":
        responses["200"] = _reply(service, components)
    responses.update(dict.fromkeys(_TAKE_CODES, _PROBLEM))
    return {
        "operationId": f"ask_{service.name}",
        "tags": [service.name],
        "summary": f"Ask {service.name}",
        "parameters": [_WAIT, _DEADLINE],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": _schema(service, service.request, "request", components)
                }
            },
        },
        "responses": responses,
    }


def _look(service: Service, components: dict[str, object]) -> dict[str, object]:
    responses: dict[str, object] = {"200": _reply(service, components), "202": _PENDING}
    responses.update(dict.fromkeys(_LOOK_CODES, _PROBLEM))
    return {
        "operationId": f"look_up_{service.name}",
        "tags": [service.name],
        "summary": f"State and reply of a request to {service.name}",
        "parameters": [_REQUEST_ID, _WAIT],
        "responses": responses,
    }


def _reply(service: Service, components: dict[str, object]) -> dict[str, object]:
    schema = _schema(service, service.reply, "reply", components)
    if service.kind == "stream":
        schema = {
            "type": "object",
            "required": ["parts", "reply"],
            "properties": {"parts": {"type": "array", "items": schema}, "reply": {}},
        }
    return {
        "description": "The reply.",
        "headers": {"Request-Id": {"schema": {"type": "string"}}},
        "content": {"application/json": {"schema": schema}},
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


_STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h2 { border-top: 1px solid #8884; padding-top: 1rem; margin-top: 2rem }
pre, textarea { font: 14px/1.4 ui-monospace, monospace; background: #8881; padding: .8rem;
  border: 1px solid #8884; border-radius: 6px; overflow: auto; width: 100%; box-sizing: border-box }
button { font: inherit; padding: .3rem 1rem; margin: .5rem 0 }
.contracts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1rem }
.contracts > div { min-width: 0 }
summary { cursor: pointer }
"""

_SCRIPT = """
for (const form of document.querySelectorAll('form')) form.addEventListener('submit', async e => {
  e.preventDefault()
  const out = form.querySelector('output'), started = performance.now()
  out.textContent = 'waiting for the reply'
  try {
    const answer = await fetch(form.action, {method: 'POST', body: form.body.value,
      headers: {'content-type': 'application/json'}})
    const text = await answer.text(), ms = Math.round(performance.now() - started)
    out.textContent = `${answer.status} ${answer.statusText}, ${ms} ms\\n` +
      `Request-Id: ${answer.headers.get('request-id')}\\n\\n` +
      JSON.stringify(JSON.parse(text), null, 2)
  } catch (error) { out.textContent = String(error) }
})
"""


def page(services: Mapping[str, Service]) -> str:
    """Make the page at /docs: each service with its contract and a form to try it."""
    sections = "".join(_section(service) for service in services.values())
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Kafka bridge</title>"
        "<meta name=viewport content='width=device-width'>"
        f"<style>{_STYLE}</style><h1>Services</h1>"
        "<p>Each takes a <code>POST</code> of JSON and answers with JSON. Machines read "
        "<a href=/openapi.json>OpenAPI</a>, <a href=/metrics>metrics</a> and "
        "<a href=/readyz>readiness</a>.</p>"
        f"{sections}<script>{_SCRIPT}</script></html>"
    )


def _section(service: Service) -> str:
    path = f"/v1/services/{service.name}/requests"
    reply = "" if service.reply is None else _contract("Reply", service.reply)
    body = json.dumps(_example(service.request.json_schema()))
    return (
        f"<h2 id={service.name}>{service.name}</h2>"
        f"<p><code>POST {path}</code> waits up to {service.wait_s:g} s for the answer; "
        f"worked on for up to {service.deadline_s:g} s.</p>"
        f"<form action={path}><textarea name=body rows=3 aria-label='JSON body'>"
        f"{html.escape(body)}</textarea><button>Send</button><pre><output>"
        "The answer shows here.</output></pre></form>"
        "<details><summary>Contract, as JSON Schema</summary>"
        f"<div class=contracts>{_contract('Request', service.request)}{reply}</div></details>"
    )


def _contract(title: str, schema: Schema) -> str:
    text = html.escape(json.dumps(schema.json_schema(), indent=2))
    return f"<div><h3>{title}</h3><pre>{text}</pre></div>"


def _example(schema: dict[str, object]) -> object:
    """Make a value to start from; references and unions are left for the reader to fill in."""
    examples: dict[object, object] = {
        "string": "text",
        "integer": 1,
        "number": 1.5,
        "boolean": True,
        "array": [],
    }
    properties = schema.get("properties")
    if isinstance(properties, dict):
        return {name: _example(value) for name, value in properties.items()}
    return examples.get(schema.get("type"))
