"""``python -m echo_service`` is ``echo-service``."""

from __future__ import annotations

from echo_service.cli import main

main()
