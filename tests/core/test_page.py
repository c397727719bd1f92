"""The page for people."""

from bridge import service
from bridge.ingress.page import render

SCHEMA = '{"type":"record","name":"P","namespace":"n","fields":[{"name":"t","type":"string"}]}'


def page(settings: str) -> str:
    return render({"s": service.load("s", request=SCHEMA, reply=SCHEMA, settings=settings)})


def test_a_form_has_a_field_for_an_idempotency_key_which_a_service_may_require() -> None:
    optional, required = page(""), page('[http]\nidempotency = "required"')

    assert "<input name=once maxlength=255  " in optional
    assert "<input name=once maxlength=255 required " in required
    assert "'idempotency-key': form.once.value" in optional
