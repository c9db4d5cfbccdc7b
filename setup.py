"""The optional C extension; all else is in pyproject.toml.

It is built in the stable ABI, so that one wheel serves every Python from 3.11.  Where it
can't be built, setuptools says so and goes on: the package then works in Python alone,
and `echo-service --version` tells.
"""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "echo_service._codec",
            ["echo_service/_codec.c"],
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
            extra_compile_args=["-O3"],
            py_limited_api=True,
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
