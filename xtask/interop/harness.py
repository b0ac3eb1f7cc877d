"""What the Python interop scripts share: named checks, and our two programs as child processes.

A check is an async function with the fact it checks as its name:

    @check("server echoes text")
    async def _(echo_program, client): ...

What stack it uses and what bytes it sends is the script's business. `main` runs the checks in
order, prints `ok - …` or `not ok - …` for each and `N passed, M failed` at the end.
"""

import asyncio
import contextlib
import json
import os
import random
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


# What our programs' `--deflate` can be, each with the length from which it compresses.
THRESHOLDS = {"default": 256, "best-ratio": 32}

# Either side of the length encodings and of the thresholds, up to more than any window.
DEFLATE_SIZES = [0, 1, 125, 126, 4096, 65536, 1024 * 1024]

# Then comes a message of this length, twice: within reach even in the smallest window, of whose 512
# bytes zlib uses 250.
TWICE = 200


def json_text(size):
    """So many bytes of what programs tell each other, which compresses well."""
    generator = random.Random(size)
    items = []
    for index in range(size // 50 + 1):
        items.append({"id": index, "kind": "measurement", "value": generator.randrange(10**6)})
    return json.dumps(items)[:size]


def random_bytes(size):
    """So many bytes that do not compress."""
    return random.Random(size).randbytes(size)


def expect_compressed(frames, kind, keeps_context):
    """Checks the frames, pairs of RSV1 and the payload's length, that came back of each of
    `DEFLATE_SIZES` as text and as random bytes, and of two times the same `TWICE` random bytes.
    """
    expected = []
    for size in DEFLATE_SIZES:
        wanted = size >= THRESHOLDS[kind]
        # Without a context, what compression makes larger is sent as it is.
        expected += [wanted, wanted and keeps_context]
    equal([rsv1 for rsv1, _ in frames], expected + [keeps_context] * 2)
    for size, (rsv1, length) in zip(DEFLATE_SIZES, frames[::2]):
        equal(length < size / 2 if rsv1 and size > 1000 else True, True)
    # All of it is in the context, if there is one.
    equal(frames[-1][1] < 100, keeps_context)


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
