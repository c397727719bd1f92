"""The page at `/docs`: the services for people, each with its contract and a form to try it."""

import html
import json
from collections.abc import Mapping

from bridge.codec import Schema
from bridge.service import Service

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
const key = document.querySelector('#key')
for (const form of document.querySelectorAll('form')) form.addEventListener('submit', async e => {
  e.preventDefault()
  const out = form.querySelector('output'), started = performance.now()
  out.textContent = 'waiting for the reply'
  try {
    const answer = await fetch(form.action, {method: 'POST', body: form.body.value,
      headers: {'content-type': 'application/json',
        ...(form.once.value && {'idempotency-key': form.once.value}),
        ...(key?.value && {authorization: 'Bearer ' + key.value})}})
    const text = await answer.text(), ms = Math.round(performance.now() - started)
    out.textContent = `${answer.status} ${answer.statusText}, ${ms} ms\\n` +
      `Request-Id: ${answer.headers.get('request-id')}\\n\\n` +
      JSON.stringify(JSON.parse(text), null, 2)
  } catch (error) { out.textContent = String(error) }
})
"""


_KEY_FIELD = (
    "<p><label>API key, for the forms below: "
    "<input id=key type=password autocomplete=off placeholder=kb_…></label></p>"
)


def render(services: Mapping[str, Service], *, has_keys: bool = False) -> str:
    """Make the page at /docs: each service with its contract and a form to try it."""
    sections = "".join(_section(service) for service in services.values())
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Kafka bridge</title>"
        "<meta name=viewport content='width=device-width'>"
        f"<style>{_STYLE}</style><h1>Services</h1>"
        "<p>Each takes a <code>POST</code> of JSON and answers with JSON. Machines read "
        "<a href=/openapi.json>OpenAPI</a>, <a href=/metrics>metrics</a> and "
        "<a href=/readyz>readiness</a>.</p>"
        f"{_KEY_FIELD if has_keys else ''}{sections}<script>{_SCRIPT}</script></html>"
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
        f"{html.escape(body)}</textarea><label>Idempotency-Key "
        f"<input name=once maxlength=255 {'required' if service.wants_key else ''} "
        "placeholder='sent again with it, it is the same request'></label> "
        "<button>Send</button><pre><output>"
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
