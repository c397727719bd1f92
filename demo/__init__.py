"""The demonstration: real requests through HTTP, Kafka and workers, and back; run by `make demo`."""


class DemoError(Exception):
    """What should have worked did not; the message says what was found and what was wanted."""
