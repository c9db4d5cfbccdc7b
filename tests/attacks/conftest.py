"""The services that are attacked, one for each way to start it, and the table at the end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.attacks.service import Service, Way
from tests.attacks.siege import Figures, Siege

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    import trustme

SEEN: list[Figures] = []
REPORT = Path(__file__).parents[2] / "reports" / "attacks.md"


@pytest.fixture(scope="session")
def identity(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of a certificate for localhost, of its key, and of who vouches for it."""
    directory = tmp_path_factory.mktemp("tls")
    issued = authority.issue_cert("localhost", "127.0.0.1")
    files = {name: directory / f"{name}.pem" for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(files["ca"])
    files["cert"].write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(files["key"])
    return {name: str(path) for name, path in files.items()}


@pytest.fixture(scope="session")
def sieges(
    identity: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Way], Awaitable[Siege]]]:
    """The service that is started in this way, the same for all attacks; it lives to the end."""
    begun: dict[Way, Siege] = {}

    async def begin(way: Way) -> Siege:
        if way not in begun:
            service = Service(tmp_path_factory.mktemp("service"), way, identity)
            await service.starts()
            begun[way] = Siege(service, service.witness())
        return begun[way]

    yield begin
    assert [each.ends() for each in begun.values()] == [0] * len(begun)


@pytest.fixture
def stands(sieges: Callable[[Way], Awaitable[Siege]]) -> Callable[..., Awaitable[None]]:
    """Attack the service that is started in this way; what was measured is in the report."""

    async def stands(attack, way: Way) -> None:
        siege = await sieges(way)
        SEEN.append(await siege.stand(attack))

    return stands


def table() -> list[str]:
    """What was measured, in Markdown."""
    head = ["attack", "seen in", "service", "memory at the peak", "kept", "CPU time", "delay"]
    rows = [
        [
            each.name,
            each.seen,
            each.way,
            f"{each.growth >> 10} KiB",
            f"{each.kept >> 10} KiB",
            f"{each.cpu:.2f} s",
            f"{1000 * each.delay:.1f} ms of {each.echoes} echoes",
        ]
        for each in SEEN
    ]
    return [f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was measured, and leave it in a file."""
    if SEEN:
        REPORT.parent.mkdir(exist_ok=True)
        REPORT.write_text("\n".join(table()) + "\n")
        terminalreporter.write_sep("=", "the attacks, and how the service stood them")
        terminalreporter.write_line("\n".join(table()))
