"""The services of this repository: one package each, with a `handle` that the worker calls."""
