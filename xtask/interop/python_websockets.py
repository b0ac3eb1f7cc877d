"""The `websockets` package against our echo server, and our client against its server.

usage: python_websockets.py ECHO CLIENT
"""

import asyncio
import http

from websockets.asyncio.client import connect as connect_to
from websockets.asyncio.server import serve
from websockets.sync.client import connect as connect_sync

from harness import Echo, check, equal, main, run_client

# Either side of each length encoding (RFC 6455 §5.2), and one message of many reads.
SIZES = [0, 1, 125, 126, 127, 65535, 65536, 1024 * 1024]
UNICODE = "κόσμε 🌍 ∑ \ufeff \U0010ffff"


def connect(echo, **options):
    """A connection to our server, never by way of the environment's proxy."""
    return connect_to(echo.url, proxy=None, max_size=2**24, **options)


async def round_trip(websocket, message):
    await websocket.send(message)
    equal(await websocket.recv(), message)


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

    async def send_all(websocket):
        for message in messages:
            await websocket.send(message)

    async with Echo(echo_program) as echo, connect(echo) as websocket:
        sending = asyncio.create_task(send_all(websocket))
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


async def client_against(handler, client, *arguments, options=(), **serving):
    """Runs our client against a server of theirs; also returns what became of the connection."""
    connections = []

    async def handle(websocket):
        connections.append(websocket)
        await handler(websocket)

    async with serve(handle, "127.0.0.1", 0, compression=None, **serving) as server:
        _, port = server.sockets[0].getsockname()
        run = await run_client(client, *options, f"ws://127.0.0.1:{port}/chat?room=1", *arguments)
        for websocket in connections:
            await websocket.wait_closed()
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


main()
