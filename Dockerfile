# The image of echo-service: `docker build -t echo-service . && docker run -p 8080:8080 echo-service`.
# Two stages: what builds the wheel stays behind.

FROM python:3.13-slim AS build
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev
WORKDIR /src
COPY pyproject.toml setup.py README.md LICENSE ./
COPY echo_service ./echo_service
# A build behind a proxy with its own certificates hands them in as the secret `ca`; they don't stay.
RUN --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt,required=false \
    python3 -m venv /app && /app/bin/python -m pip install --no-cache-dir --quiet .

FROM python:3.13-slim
COPY --from=build /app /app
ENV PYTHONUNBUFFERED=1 \
    ECHO_SERVICE_BIND=0.0.0.0:8080
EXPOSE 8080
USER 65532:65532
STOPSIGNAL SIGTERM
# The process is PID 1 itself: signals reach it, and its exit code is the container's.
ENTRYPOINT ["/app/bin/echo-service"]
CMD ["serve"]
