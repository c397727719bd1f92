# The bridge: whatever `kbridge` does, except the embedded Kafka. An ingress unless told otherwise.
# Workers are built on it, one image per service: consumers/<service>/Dockerfile.
ARG PYTHON=python:3.12-slim

FROM ${PYTHON} AS build
WORKDIR /build
COPY requirements/bridge.txt requirements/build.txt requirements/
RUN python3 -m venv --without-pip /app/venv \
 && pip install --no-cache-dir --no-deps --require-hashes --requirement requirements/build.txt \
 && pip --python /app/venv/bin/python install --no-cache-dir --no-deps --require-hashes --requirement requirements/bridge.txt
COPY pyproject.toml README.md LICENSE ./
COPY bridge bridge
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir dist . \
 && pip --python /app/venv/bin/python install --no-cache-dir --no-deps --no-index dist/*.whl

FROM ${PYTHON}
LABEL org.opencontainers.image.title="kafka-bridge" \
      org.opencontainers.image.description="HTTP to containers that open no port, by way of Kafka" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /app/venv /app/venv
COPY schemas /app/schemas
# Nothing is written but to /tmp, so the root may be read-only.
ENV PATH=/app/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    BRIDGE_HOST=0.0.0.0 \
    BRIDGE_PORT=8080 \
    BRIDGE_SCHEMAS=/app/schemas
WORKDIR /app
USER 10001:10001
STOPSIGNAL SIGTERM
# Alive, not ready: it must not depend on Kafka, or an outage there becomes a storm of restarts here.
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 CMD ["python", "-c", "import http.client, os, sys; ingress = http.client.HTTPConnection('127.0.0.1', int(os.environ['BRIDGE_PORT']), timeout=2); ingress.request('GET', '/healthz'); sys.exit(ingress.getresponse().status != 200)"]
ENTRYPOINT ["kbridge"]
CMD ["ingress"]
