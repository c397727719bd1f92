"""Text: what Avro calls a string."""

from bridge.codec.refusal import describe, refuse


def check_text(value: object) -> str:
    """Let through text that UTF-8 can carry; a lone surrogate is half a character."""
    if not isinstance(value, str):
        raise refuse(f"found {describe(value)}: want text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise refuse(f"found {describe(value)}: half a character (a lone surrogate)") from None
    return value if type(value) is str else str.__str__(value)
