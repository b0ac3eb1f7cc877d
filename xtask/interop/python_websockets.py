"""The `websockets` package against our echo server, and our client against its server.

usage: python_websockets.py ECHO CLIENT
"""

import asyncio
import http

from websockets.asyncio.client import connect as connect_to
from websockets.asyncio.server import serve
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    ServerPerMessageDeflateFactory,
)
from websockets.frames import Opcode
from websockets.sync.client import connect as connect_sync

from harness import (
    DEFLATE_SIZES,
    THRESHOLDS,
    TWICE,
    Echo,
    check,
    equal,
    expect_compressed,
    json_text,
    main,
    random_bytes,
    run_client,
)

# Either side of each length encoding (RFC 6455 §5.2), and one message of many reads.
SIZES = [0, 1, 125, 126, 127, 65535, 65536, 1024 * 1024]
UNICODE = "κόσμε 🌍 ∑ \ufeff \U0010ffff"


def connect(echo, **options):
    """A connection to our server, never by way of the environment's proxy."""
    return connect_to(echo.url, proxy=None, max_size=2**24, **options)


async def round_trip(websocket, message):
    await websocket.send(message)
    equal(await websocket.recv(), message)


async def send_all(websocket, messages):
    for message in messages:
        await websocket.send(message)


# Our server, their client.


@check("server echoes text and binary of each length encoding")
async def _(echo_program, _):
    async with Echo(echo_program) as echo, connect(echo) as websocket:
        for size in SIZES:
            await round_trip(websocket, "x" * size)
            await round_trip(websocket, bytes(index % 251 for index in range(size)))


@check("server echoes text beyond ASCII")
async def _(echo_program, _):
    async with Echo(echo_program) as echo, connect(echo) as websocket:
        await round_trip(websocket, UNICODE)


@check("server puts fragmented messages together")
async def _(echo_program, _):
    async def fragments():
        for fragment in (b"\x00", b"", b"\xff" * 70000):
            yield fragment

    async with Echo(echo_program) as echo, connect(echo) as websocket:
        await websocket.send(["Hel", "lo", "", ", ", "κόσμε"])
        equal(await websocket.recv(), "Hello, κόσμε")
        await websocket.send(fragments())
        equal(await websocket.recv(), b"\x00" + b"\xff" * 70000)


@check("server answers pings, also between messages")
async def _(echo_program, _):
    async with Echo(echo_program) as echo, connect(echo) as websocket:
        latency = await (await websocket.ping(b"are you there?"))
        equal(0 < latency < 10, True)
        await websocket.send("before")
        pong = await websocket.ping()
        await websocket.send("after")
        await pong
        equal([await websocket.recv(), await websocket.recv()], ["before", "after"])


@check("server answers 1000 pipelined messages in order")
async def _(echo_program, _):
    messages = [f"message {index}" for index in range(1000)]
    async with Echo(echo_program) as echo, connect(echo) as websocket:
        sending = asyncio.create_task(send_all(websocket, messages))
        equal([await websocket.recv() for _ in messages], messages)
        await sending


@check("server echoes close codes")
async def _(echo_program, _):
    async with Echo(echo_program) as echo:
        for code, reason in [(1000, "bye"), (1001, ""), (3001, "κόσμε"), (4999, "x" * 123)]:
            async with connect(echo) as websocket:
                await websocket.close(code, reason)
                equal(websocket.protocol.close_rcvd.code, code)
                equal(websocket.protocol.close_rcvd_then_sent, False)


@check("server serves 200 connections at once")
async def _(echo_program, _):
    connections = 200
    everybody_is_here = asyncio.Barrier(connections)

    async def one(echo, index):
        # One address and 200 at the same moment: the accept queue may make some of them wait.
        async with connect(echo, open_timeout=20) as websocket:
            await everybody_is_here.wait()
            await round_trip(websocket, f"from connection {index}")

    async with Echo(echo_program) as echo:
        async with asyncio.TaskGroup() as tasks:
            for index in range(connections):
                tasks.create_task(one(echo, index))


@check("server speaks with the blocking client")
async def _(echo_program, _):
    def talk(url):
        with connect_sync(url, proxy=None) as websocket:
            for message in ("text", b"binary", UNICODE):
                websocket.send(message)
                equal(websocket.recv(timeout=10), message)

    async with Echo(echo_program) as echo:
        await asyncio.to_thread(talk, echo.url)


@check("server without deflate declines the offered extension")
async def _(echo_program, _):
    # Theirs offers it unless told otherwise.
    async with Echo(echo_program) as echo, connect(echo) as websocket:
        equal(websocket.protocol.extensions, [])
        await round_trip(websocket, "plain " * 1000)


@check("server selects no subprotocol that it was not given")
async def _(echo_program, _):
    offer = ["chat", "superchat"]
    async with Echo(echo_program) as echo, connect(echo, subprotocols=offer) as websocket:
        equal(websocket.subprotocol, None)
        await round_trip(websocket, "still here")


# Their server, our client.


async def client_against(
    handler, client, *arguments, options=(), compression=None, **serving
):
    """Runs our client against a server of theirs; also returns what became of the connection."""
    connections = []
    errors = []

    async def handle(websocket):
        connections.append(websocket)
        try:
            await handler(websocket)
        except Exception as error:  # to be raised where the check waits
            errors.append(error)

    async with serve(handle, "127.0.0.1", 0, compression=compression, **serving) as server:
        _, port = server.sockets[0].getsockname()
        run = await run_client(client, *options, f"ws://127.0.0.1:{port}/chat?room=1", *arguments)
        for websocket in connections:
            await websocket.wait_closed()
    for error in errors:
        raise error
    return run, connections[0] if connections else None


async def echo_all(websocket):
    async for message in websocket:
        await websocket.send(message)


@check("client prints each reply and closes with 1000")
async def _(_, client):
    run, connection = await client_against(echo_all, client, "one", "two", UNICODE)
    run.expect_replies("one", "two", UNICODE)
    equal(connection.protocol.close_rcvd.code, 1000)
    equal(connection.request.path, "/chat?room=1")


@check("client sends text, or binary when asked to")
async def _(_, client):
    kinds = []

    async def note_kind(websocket):
        async for message in websocket:
            kinds.append(type(message))
            await websocket.send("noted")

    for options in ([], ["--binary"]):
        run, _ = await client_against(note_kind, client, "hi", options=options)
        run.expect_replies("noted")
    equal(kinds, [str, bytes])


@check("client takes messages of each length encoding")
async def _(_, client):
    async def send_as_asked(websocket):
        async for size in websocket:
            await websocket.send("x" * int(size))

    sizes = [size for size in SIZES if size > 0]
    run, _ = await client_against(send_as_asked, client, *map(str, sizes))
    run.expect_replies(*("x" * size for size in sizes))


@check("client puts fragments together and answers pings between them")
async def _(_, client):
    async def interrupt(websocket):
        async def fragments(ping):
            yield "Hel"
            await (await websocket.ping(b"in the middle"))
            yield "lo"

        await websocket.recv()
        await websocket.send(fragments(websocket.ping))
        await websocket.wait_closed()

    run, _ = await client_against(interrupt, client, "hi")
    run.expect_replies("Hello")


@check("client reports the code and reason of the server's close")
async def _(_, client):
    async def go_away(websocket):
        await websocket.recv()
        await websocket.close(4001, "go away")

    run, connection = await client_against(go_away, client, "hi")
    run.expect_failure("4001", "go away")
    equal(connection.protocol.close_rcvd.code, 4001)


@check("client reports the status of a rejected handshake")
async def _(_, client):
    def reject(connection, _request):
        return connection.respond(http.HTTPStatus.UNAUTHORIZED, "who are you?\n")

    run, _ = await client_against(echo_all, client, "hi", process_request=reject)
    run.expect_failure("401")


@check("client offers the subprotocol that a server insists on")
async def _(_, client):
    async def tell_subprotocol(websocket):
        await websocket.recv()
        await websocket.send(f"speaking {websocket.subprotocol}")
        await websocket.wait_closed()

    # This server rejects who does not offer it.
    insist = {"subprotocols": ["chat"]}
    run, _ = await client_against(tell_subprotocol, client, "hi", **insist)
    run.expect_failure("400")
    options = ["--subprotocol", "chat"]
    run, _ = await client_against(tell_subprotocol, client, "hi", options=options, **insist)
    run.expect_replies("speaking chat")


# permessage-deflate (RFC 7692), both ways.


async def talk_compressed(websocket, kind, no_contexts, windows):
    """Has messages echoed by our end, whose `--deflate` is `kind`.

    `no_contexts` and `windows` are what was to be agreed on, for our end and for theirs.
    """
    [deflate] = websocket.protocol.extensions
    equal(
        (deflate.remote_no_context_takeover, deflate.local_no_context_takeover), no_contexts
    )
    equal((deflate.remote_max_window_bits, deflate.local_max_window_bits), windows)
    frames = note_frames(deflate)
    for size in DEFLATE_SIZES:
        await round_trip(websocket, json_text(size))
        await round_trip(websocket, random_bytes(size))
    # Random, so that only a context makes the second one small.
    for _ in range(2):
        await round_trip(websocket, random_bytes(TWICE))
    expect_compressed(frames, kind, keeps_context=not no_contexts[0])

    messages = [json_text(index) for index in range(600)]
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(send_all(websocket, messages))
        equal([await websocket.recv() for _ in messages], messages)

    async def fragments():
        yield json_text(5000)
        await (await websocket.ping(b"between compressed fragments"))
        yield ""
        yield json_text(70000)

    await websocket.send(fragments())
    equal(await websocket.recv(), json_text(5000) + json_text(70000))


def note_frames(deflate):
    """Notes RSV1 and the payload's length of each data frame that comes to their end."""
    frames = []
    decode = deflate.decode

    def note_and_decode(frame, **options):
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            frames.append((frame.rsv1, len(frame.data)))
        return decode(frame, **options)

    deflate.decode = note_and_decode
    return frames


def deflate_checks(kind, name, no_contexts, windows):
    """The checks of one configuration of theirs against one of ours.

    `no_contexts` says what theirs asks for: (server, client). So does `windows`, where nothing is
    `None`.
    """
    server_quiet, client_quiet = no_contexts
    # Ours has no contexts by default, whatever they ask for.
    agreed = (True, True) if kind == "default" else no_contexts
    server_bits, client_bits = windows

    @check(f"server with --deflate={kind} compresses, their client: {name}")
    async def _(echo_program, _):
        offer = ClientPerMessageDeflateFactory(
            server_quiet, client_quiet, server_bits, client_bits or True
        )
        async with (
            Echo(echo_program, f"--deflate={kind}") as echo,
            connect(echo, compression=None, extensions=[offer]) as websocket,
        ):
            bits = (server_bits or 15, client_bits or 15)
            await talk_compressed(websocket, kind, agreed, bits)

    @check(f"client with --deflate={kind} compresses, their server: {name}")
    async def _(_, client):
        async def talk(websocket):
            bits = (client_bits or 15, server_bits or 15)
            await talk_compressed(websocket, kind, agreed[::-1], bits)

        accept = ServerPerMessageDeflateFactory(
            server_quiet, client_quiet, server_bits, client_bits
        )
        options = ["--echo", f"--deflate={kind}"]
        run, _ = await client_against(
            talk, client, options=options, extensions=[accept], max_size=2**24
        )
        run.expect_replies()


for kind in THRESHOLDS:
    deflate_checks(kind, "as it comes", (False, False), (None, None))
    deflate_checks(kind, "no contexts", (True, True), (None, None))
    deflate_checks(kind, "no context of the server", (True, False), (None, None))
    deflate_checks(kind, "no context of the client", (False, True), (None, None))
    deflate_checks(kind, "windows of 9 bits", (False, False), (9, 9))
    deflate_checks(kind, "windows of 9 and 12 bits, no contexts", (True, True), (9, 12))


@check("server and client compress with theirs as it is configured by default")
async def _(echo_program, client):
    async with Echo(echo_program, "--deflate=best-ratio") as echo, connect(echo) as websocket:
        await talk_compressed(websocket, "best-ratio", (False, False), (15, 15))

    async def talk(websocket):
        await talk_compressed(websocket, "best-ratio", (False, False), (12, 12))

    options = ["--echo", "--deflate=best-ratio"]
    run, _ = await client_against(
        talk, client, options=options, compression="deflate", max_size=2**24
    )
    run.expect_replies()


# Legal by RFC 7692 §7.1.2, and no zlib can compress with it.


@check("server declines to compress with a window of 8 bits, or takes the next offer")
async def _(echo_program, _):
    smallest = ClientPerMessageDeflateFactory(server_max_window_bits=8)
    async with Echo(echo_program, "--deflate=best-ratio") as echo:
        async with connect(echo, compression=None, extensions=[smallest]) as websocket:
            equal(websocket.protocol.extensions, [])
            await round_trip(websocket, json_text(4096))
        offers = [smallest, ClientPerMessageDeflateFactory()]
        async with connect(echo, compression=None, extensions=offers) as websocket:
            equal(len(websocket.protocol.extensions), 1)
            await round_trip(websocket, json_text(4096))


@check("client told to use a window of 8 bits sends as it is, and takes compressed messages")
async def _(_, client):
    async def talk(websocket):
        frames = note_frames(*websocket.protocol.extensions)
        for _ in range(2):
            await round_trip(websocket, json_text(4096))
        equal(frames, [(False, 4096)] * 2)

    accept = ServerPerMessageDeflateFactory(client_max_window_bits=8)
    for kind in THRESHOLDS:
        options = ["--echo", f"--deflate={kind}"]
        run, _ = await client_against(talk, client, options=options, extensions=[accept])
        run.expect_replies()


@check("client compresses what it is told to send")
async def _(_, client):
    messages = [json_text(size) for size in (1, 300, 70000, 70000)]
    frames = []

    async def note_and_echo(websocket):
        [deflate] = websocket.protocol.extensions
        frames.append(note_frames(deflate))
        await echo_all(websocket)

    options = ["--deflate"]
    run, _ = await client_against(
        note_and_echo, client, *messages, options=options, compression="deflate"
    )
    run.expect_replies(*messages)
    equal([rsv1 for rsv1, _ in frames[0]], [False, True, True, True])


main()
