# The image of echo-service; docs/container.md tells how it is built and run.
# Two stages: what builds the service stays behind.

ARG PYTHON=3.13.16-slim-trixie

FROM python:${PYTHON} AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml setup.py README.md LICENSE ./
COPY locks ./locks
COPY echo_service ./echo_service
# Only files that are locked are fetched, and nothing of them runs meanwhile: they are wheels.  The
# service itself is built of what is here then; no index is asked.
# A build behind a proxy with its own certificates hands them in as the secret `ca`; they don't stay.
# The bytecode is never compared with its source: it holds whatever times the files are given.
RUN --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt,required=false \
    python3 -m venv /app \
    && /app/bin/pip install --no-cache-dir --no-compile --quiet --only-binary=:all: --require-hashes \
        --requirement locks/service.txt \
    && /app/bin/pip install --no-cache-dir --no-compile --quiet --only-binary=:all: --require-hashes \
        --requirement locks/build.txt --target /build \
    && PYTHONPATH=/build /app/bin/pip install --no-cache-dir --no-compile --quiet \
        --no-index --no-deps --no-build-isolation . \
    && /app/bin/pip check \
    && /app/bin/pip uninstall --yes --quiet pip \
    && /app/bin/python -m compileall -q --invalidation-mode unchecked-hash /app/lib \
    && /app/bin/python -P -c 'import echo_service._codec'

FROM python:${PYTHON}
ARG PYTHON
ARG REVISION=unknown
LABEL org.opencontainers.image.title="echo-service" \
      org.opencontainers.image.description="A WebSocket echo service that is right: strict, bounded, drained" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="python:${PYTHON}"
COPY --from=build /app /app
ENV PATH=/app/bin:${PATH} \
    ECHO_SERVICE_BIND=0.0.0.0:8080
# The base has no bytecode of Python's own library; this makes it of what a start and a check use.
RUN ["python", "-c", "import encodings.idna, structlog, echo_service.cli, echo_service.check.command, echo_service.metrics"]
EXPOSE 8080
USER 65532:65532
HEALTHCHECK --interval=30s --timeout=10s --start-period=10s \
    CMD ["echo-service", "check", "--quick", "ws://127.0.0.1:8080/"]
# The process is PID 1 itself: signals reach it, and its exit code is the container's.
STOPSIGNAL SIGTERM
ENTRYPOINT ["echo-service"]
CMD ["serve"]
