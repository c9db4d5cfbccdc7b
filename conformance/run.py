"""Run Autobahn's cases against the service, and fail unless every one is right.

Two runners are used: kosoku, from PyPI, which has Autobahn's own case files under a
native runner, and, where a Python 2.7 is found, the real wstest.  Both verdicts of a
case count, `behavior` and `behaviorClose`: a server that never answers a Close is all OK
in the first.  The cases are counted, for a runner that finds no server reports none.

    FULL=1   all 517 cases instead of the quick 301, and the table in docs/conformance.md
    RUNS=5   so many runs in a row
    LOAD=1   with every core kept busy beside
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
SLOW = ("12.*", "13.*")

SECTIONS = {
    "1": ("Framing", 16),
    "2": ("Pings and pongs", 11),
    "3": ("Reserved bits", 7),
    "4": ("Opcodes", 10),
    "5": ("Fragmentation", 20),
    "6": ("UTF-8", 145),
    "7": ("Close", 37),
    "9": ("Limits and performance", 54),
    "10": ("Autofragmentation", 1),
    "12": ("Compression", 90),
    "13": ("Compression: parameters", 126),
}
"""Autobahn's sections and how many cases each has: 517, and 301 without the last two."""

NO_C = "import sys; sys.modules['echo_service._codec'] = None\n"
NO_LANE = "from echo_service import lane; lane.AVAILABLE = False\n"
RUN = "from echo_service.cli import main; main()"

COMBINATIONS = {
    "lane, C": (RUN, []),
    "lane, Python": (NO_C + RUN, []),
    "no lane, C": (NO_LANE + RUN, []),
    "no lane, Python": (NO_C + NO_LANE + RUN, []),
    "wsproto alone": (RUN, ["--no-fast-lane"]),
}
"""How the service can be: as on a machine without a compiler, on a platform without epoll."""

INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}
"""Cases that have no verdict, whatever a server does."""

Verdicts = dict[str, tuple[str, str]]


@contextmanager
def service(program: str, options: list[str]) -> Iterator[str]:
    """Run the service in a process of its own; it must stop well and complain of nothing."""
    command = [sys.executable, "-c", program, "serve", "--bind", "127.0.0.1:0", *options]
    process = subprocess.Popen(
        [*command, "--log-format", "json"], stderr=subprocess.PIPE, text=True
    )
    lines = map(json.loads, process.stderr or ())
    complaints: list[dict[str, Any]] = []
    reader = Thread(
        target=lambda: complaints.extend(line for line in lines if line["level"] != "info")
    )
    try:
        url = next(line["url"] for line in lines if line["event"] == "server.listening")
        reader.start()
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait()
    reader.join()
    if code or complaints:
        sys.exit(f"the service ended with {code} and complained: {complaints}")


@contextmanager
def load() -> Iterator[None]:
    """Keep every core busy, where LOAD is set."""
    burners = os.cpu_count() or 1 if os.environ.get("LOAD") else 0
    with ExitStack() as stack:
        for _ in range(burners):
            burner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(burner.wait)
            stack.callback(burner.kill)
        yield


def kosoku(url: str, reports: Path, *, full: bool) -> None:
    """Run the cases with kosoku, which leaves its verdicts in reports/index.json."""
    excluded = [] if full else [word for each in SLOW for word in ("--exclude", each)]
    program = str(Path(sys.executable).with_name("kosoku"))
    command = [program, *excluded, "--outdir", str(reports), url]
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL)


def wstest(url: str, reports: Path, *, full: bool) -> None:
    """Run the cases with the real AutobahnTestSuite, in its Python 2.7."""
    spec = {
        "servers": [{"url": url}],
        "outdir": str(reports),
        "cases": ["*"],
        "exclude-cases": [] if full else list(SLOW),
        "exclude-agent-cases": {},
    }
    reports.mkdir(parents=True)
    file = reports / "spec.json"
    file.write_text(json.dumps(spec))
    command = [f"{AUTOBAHN}/bin/wstest", "--mode", "fuzzingclient", "--spec", str(file)]
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


AUTOBAHN = ROOT / ".venv-autobahn"


def python27() -> str | None:
    """A Python 2.7 that works, from PYTHON27, the path or pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [os.environ.get("PYTHON27"), shutil.which("python2.7")]
    found += map(str, pyenv.glob("versions/2.7.*/bin/python2.7"))
    check = "import sys, ssl, zlib; assert sys.version_info[:2] == (2, 7)"
    for python in filter(None, found):
        if not subprocess.run([python, "-c", check], check=False, capture_output=True).returncode:
            return python
    return None


def install_wstest(python: str) -> None:
    """Make an environment with the AutobahnTestSuite for this Python 2.7, once."""
    if (AUTOBAHN / "complete").exists():
        return
    boot = str(ROOT / ".venv-autobahn-boot")
    pip = [f"{boot}/bin/python", "-m", "pip", "install", "--quiet"]
    subprocess.run([sys.executable, "-m", "venv", boot], check=True)
    # 20.21.1 is the last virtualenv that makes environments of Python 2.7.
    subprocess.run([*pip, "virtualenv==20.21.1", "setuptools<80"], check=True)
    subprocess.run([f"{boot}/bin/virtualenv", "--quiet", "-p", python, str(AUTOBAHN)], check=True)
    install = [f"{AUTOBAHN}/bin/pip", "install", "--quiet", "autobahntestsuite==25.10.1"]
    subprocess.run(install, check=True, stderr=subprocess.DEVNULL)
    (AUTOBAHN / "complete").touch()


def grade(reports: Path, *, full: bool) -> Verdicts:
    """Read the verdicts; exits unless each case is there and each verdict is right."""
    index = reports / "index.json"
    agents = json.loads(index.read_text()) if index.exists() else {}
    cases: dict[str, Any] = next(iter(agents.values()), {})
    verdicts = {case: (row["behavior"], row["behaviorClose"]) for case, row in cases.items()}
    counted = Counter(case.split(".")[0] for case in verdicts)
    expected = {number: count for number, (_, count) in sections(full=full)}
    wrong = {
        case: verdict
        for case, verdict in verdicts.items()
        if verdict != (("INFORMATIONAL",) * 2 if case in INFORMATIONAL else ("OK", "OK"))
    }
    if counted != expected or wrong:
        sys.exit(f"cases in each section: {dict(counted)} of {expected}; wrong: {wrong}")
    return verdicts


def sections(*, full: bool) -> list[tuple[str, tuple[str, int]]]:
    """The sections that are run."""
    quick = {each.removesuffix(".*") for each in SLOW}
    return [(number, row) for number, row in SECTIONS.items() if full or number not in quick]


def write_table(verdicts: dict[str, Verdicts]) -> None:
    """Put the table of verdicts, a row a section, into docs/conformance.md."""
    runners = list(verdicts)
    lines = [
        "| section | cases | " + " | ".join(runners) + " |",
        "|---|---|" + "---|" * len(runners),
    ]
    for number, (title, count) in SECTIONS.items():
        words = [in_words(number, each) for each in verdicts.values()]
        lines.append(f"| {number} {title} | {count} | " + " | ".join(words) + " |")
    total = sum(count for _, count in SECTIONS.values())
    words = [in_words("", each) for each in verdicts.values()]
    lines.append(f"| all | {total} | " + " | ".join(words) + " |")
    page = ROOT / "docs/conformance.md"
    mark = re.compile(r"(<!-- table -->\n).*(<!-- /table -->)", re.DOTALL)
    page.write_text(mark.sub(lambda m: m[1] + "\n".join(lines) + "\n" + m[2], page.read_text()))


def in_words(section: str, verdicts: Verdicts) -> str:
    """How often each pair of verdicts, `behavior` and `behaviorClose`, came in a section or all."""
    chosen = [v for case, v in verdicts.items() if section in ("", case.split(".")[0])]
    pairs = Counter(" / ".join(dict.fromkeys(pair)) for pair in chosen)
    return ", ".join(f"{count} {pair}" for pair, count in sorted(pairs.items(), reverse=True))


def main() -> None:
    """Run every runner as often as asked, and say what came of it."""
    full = bool(os.environ.get("FULL"))
    runners = {"kosoku": kosoku}
    if python := python27():
        install_wstest(python)
        runners["wstest"] = wstest
    else:
        print("wstest: skipped, since no Python 2.7 was found (set PYTHON27 to name one)")
    # The real wstest, which is slow, has the service as it is; the fast runner has all.
    plan = [(name, "lane, C") for name in runners]
    plan += [("kosoku", each) for each in COMBINATIONS if each != "lane, C"]
    verdicts: dict[str, Verdicts] = {}
    with load(), tempfile.TemporaryDirectory() as reports:
        for run in range(int(os.environ.get("RUNS", "1"))):
            for name, combination in plan:
                title = f"{name}: {combination}"
                where = Path(reports) / f"{title}-{run}"
                with service(*COMBINATIONS[combination]) as url:
                    runners[name](url, where, full=full)
                verdicts[title] = grade(where, full=full)
                print(f"{title}: {len(verdicts[title])} cases: {in_words('', verdicts[title])}")
    if full:
        write_table(verdicts)


if __name__ == "__main__":
    main()
