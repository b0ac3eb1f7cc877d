"""What the Python interop scripts share: named checks, and our two programs as child processes.

A check is an async function with the fact it checks as its name:

    @check("server echoes text")
    async def _(echo_program, client): ...

What stack it uses and what bytes it sends is the script's business. `main` runs the checks in
order, prints `ok - …` or `not ok - …` for each and `N passed, M failed` at the end.
"""

import asyncio
import contextlib
import os
import sys

CHECK_SECONDS = 30  # 200 connections at once take 1 s; far more means that something hangs
SCRIPT_SECONDS = 240

_checks = []


def check(name):
    """Registers a check; it is called with the paths of our echo server and our client."""

    def register(function):
        _checks.append((name, function))
        return function

    return register


def main():
    """Runs all checks with the programs named on the command line; does not return."""
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} ECHO CLIENT")
    sys.exit(asyncio.run(_run(*(os.path.abspath(path) for path in sys.argv[1:]))))


async def _run(echo, client):
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SCRIPT_SECONDS
    failed = 0
    for name, function in _checks:
        try:
            async with asyncio.timeout_at(min(deadline, loop.time() + CHECK_SECONDS)):
                await function(echo, client)
            print(f"ok - {name}")
        except Exception as error:  # a failed check must not keep the others from running
            failed += 1
            while isinstance(error, ExceptionGroup):
                error = error.exceptions[0]
            print(f"not ok - {name}: {type(error).__name__}: {error}")
    print(f"{len(_checks) - failed} passed, {failed} failed")
    return int(failed > 0)


def equal(actual, expected):
    """Fails the check unless both are equal; long values are cut in the message."""
    if actual != expected:
        raise AssertionError(f"got {actual!r:.200}, expected {expected!r:.200}")


class Echo:
    """Our echo server on a free port: `async with Echo(path, "--option") as echo:`."""

    def __init__(self, program, *options):
        self._command = [program, "127.0.0.1:0", *options]

    async def __aenter__(self):
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdout=asyncio.subprocess.PIPE
        )
        try:
            line = (await self._process.stdout.readline()).decode()
            prefix = "listening on ws://"
            if not line.startswith(prefix):
                raise AssertionError(f"the echo server printed {line!r} instead of its address")
            self.url = line.removeprefix("listening on ").strip()
            self.host, _, port = line.removeprefix(prefix).strip().rpartition(":")
            self.port = int(port)
        except BaseException:
            await _end(self._process)
            raise
        return self

    async def __aexit__(self, *_):
        await _end(self._process)


class ClientRun:
    """What a run of our client left behind."""

    def __init__(self, code, stdout, stderr):
        self.code = code
        self.stdout = stdout
        self.stderr = stderr

    def expect_replies(self, *replies):
        """Checks that it ended well and printed exactly these lines."""
        equal((self.stdout.splitlines(), self.code), (list(replies), 0))

    def expect_failure(self, *words):
        """Checks that it failed and that its error message has all these words."""
        equal(self.code not in (0, None), True)
        for word in words:
            if word not in self.stderr:
                raise AssertionError(f"{word!r} is not in the client's message {self.stderr!r}")


async def run_client(program, *arguments):
    """Runs our client to its end."""
    process = await asyncio.create_subprocess_exec(
        program, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        stdout, stderr = await process.communicate()
    finally:
        await _end(process)
    return ClientRun(process.returncode, stdout.decode(), stderr.decode())


async def _end(process):
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
