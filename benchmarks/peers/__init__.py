"""The servers that echo-service is compared with, each in its library's ordinary use.

They are programs: `python -m benchmarks.peers.NAME PORT [--compress]` listens on 127.0.0.1.
"""

import sys

LARGEST = 16 * 1024 * 1024
"""The largest message where a library lets it be chosen, in bytes: echo-service's default."""


def port() -> int:
    """The port to listen on."""
    return int(sys.argv[1])


def compress() -> bool:
    """Whether permessage-deflate is to be accepted."""
    return "--compress" in sys.argv[2:]
