"""Handlers of the services that only tests use."""
