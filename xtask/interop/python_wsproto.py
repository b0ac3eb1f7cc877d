"""`wsproto`, and raw bytes where it is too well-behaved, against our echo server and our client.

usage: python_wsproto.py ECHO CLIENT

Over plain sockets, so that it is decided here which bytes arrive together. Frames are those of
RFC 6455 §5.2, close codes those of §7.4.1.
"""

import asyncio
import contextlib

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Message,
    Ping,
    Pong,
    Request,
    TextMessage,
)
from wsproto.extensions import PerMessageDeflate

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

TEXT = 0x81  # FIN and the opcode of a text frame


def frame(first_byte, payload, masked):
    """A frame of up to 125 bytes, right or wrong as the caller likes; the masking key is zero."""
    if masked:
        return bytes([first_byte, 0x80 | len(payload)]) + bytes(4) + payload
    return bytes([first_byte, len(payload)]) + payload


class Peer:
    """Their end of a connection: a `WSConnection` and the streams it reads and writes."""

    def __init__(self, role, reader, writer, dripping=False):
        self.protocol = WSConnection(role)
        self._reader = reader
        self._writer = writer
        self._dripping = dripping
        self._events = self.protocol.events()

    async def write(self, data):
        """Writes bytes as they are: at once, or one by one if we are dripping."""
        for chunk in [bytes([byte]) for byte in data] if self._dripping else [data]:
            self._writer.write(chunk)
            await self._writer.drain()

    async def send(self, *events):
        for event in events:
            await self.write(self.protocol.send(event))

    async def receive(self):
        """The next event."""
        while True:
            for event in self._events:
                return event
            data = await self._reader.read(65536)
            if not data:
                raise AssertionError("the connection ended without a Close frame")
            self.protocol.receive_data(data)
            self._events = self.protocol.events()

    async def receive_message(self):
        """The next message, whole."""
        parts = []
        while True:
            event = await self.receive()
            if not isinstance(event, Message):
                raise AssertionError(f"got {event}, expected a message")
            parts.append(event.data)
            if event.message_finished:
                return parts[0][:0].join(parts)

    async def receive_close(self, code):
        """Expects a Close with this code, answers it if it is the first, waits for the end."""
        event = await self.receive()
        equal((type(event), getattr(event, "code", None)), (CloseConnection, code))
        with contextlib.suppress(ConnectionError):
            if self.protocol.state.name == "REMOTE_CLOSING":
                await self.send(event.response())
            # A server closes TCP first (RFC 6455 §7.1.1), so a server's end is ours to make.
            if not self.protocol.client:
                self._writer.close()
            while await self._reader.read(65536):
                pass


# Our server, their client.


@contextlib.asynccontextmanager
async def connected(echo, early=b"", extensions=(), **options):
    """A peer whose handshake with our server is done; `early` goes out with the request."""
    reader, writer = await asyncio.open_connection(echo.host, echo.port)
    try:
        peer = Peer(ConnectionType.CLIENT, reader, writer, **options)
        request = Request(host=echo.host, target="/", extensions=list(extensions))
        await peer.write(peer.protocol.send(request) + early)
        equal(type(await peer.receive()), AcceptConnection)
        yield peer
    finally:
        writer.close()


@check("server echoes text and binary of each length encoding")
async def _(echo_program, _):
    async with Echo(echo_program) as echo, connected(echo) as peer:
        for size in (0, 1, 125, 126, 65535, 65536, 1024 * 1024):
            await peer.send(TextMessage("x" * size))
            equal(await peer.receive_message(), "x" * size)
            await peer.send(BytesMessage(b"\xff" * size))
            equal(await peer.receive_message(), b"\xff" * size)
        await peer.send(CloseConnection(1000, "bye"))
        await peer.receive_close(1000)


@check("server reads a request and frames that come one byte at a time")
async def _(echo_program, _):
    async with Echo(echo_program) as echo, connected(echo, dripping=True) as peer:
        for message in ("κόσμε", "x" * 126):
            await peer.send(TextMessage(message))
            equal(await peer.receive_message(), message)
        await peer.send(CloseConnection(3000))
        await peer.receive_close(3000)


@check("server answers a ping in the middle of a fragmented message")
async def _(echo_program, _):
    async with Echo(echo_program) as echo, connected(echo) as peer:
        await peer.send(TextMessage("Hel", message_finished=False), Ping(b"now"))
        equal(await peer.receive(), Pong(b"now"))
        await peer.send(TextMessage("lo"))
        equal(await peer.receive_message(), "Hello")


@check("server reads frames that come in one segment with the request")
async def _(echo_program, _):
    early = frame(TEXT, b"early", masked=True) + frame(TEXT, b"bird", masked=True)
    async with Echo(echo_program) as echo, connected(echo, early) as peer:
        equal([await peer.receive_message(), await peer.receive_message()], ["early", "bird"])


async def server_closes(echo_program, code, data, *options):
    async with Echo(echo_program, *options) as echo, connected(echo) as peer:
        await peer.write(data)
        await peer.receive_close(code)


@check("server closes with 1002 on an unmasked frame")
async def _(echo_program, _):
    await server_closes(echo_program, 1002, frame(TEXT, b"hi", masked=False))


@check("server closes with 1002 on a reserved bit")
async def _(echo_program, _):
    await server_closes(echo_program, 1002, frame(TEXT | 0x40, b"hi", masked=True))


@check("server closes with 1007 on text that is not UTF-8")
async def _(echo_program, _):
    await server_closes(echo_program, 1007, frame(TEXT, b"\xce\xba\xe1\xbd", masked=True))


@check("server closes with 1009 on a message over its limit, and takes one at it")
async def _(echo_program, _):
    limit = ("--max-message-size", "10")
    async with Echo(echo_program, *limit) as echo, connected(echo) as peer:
        await peer.send(TextMessage("x" * 10))
        equal(await peer.receive_message(), "x" * 10)
    await server_closes(echo_program, 1009, frame(TEXT, b"x" * 16, masked=True), *limit)


# Their server, our client.


async def client_against(handler, client, *arguments, options=()):
    """Runs our client against a server that does with its first connection what `handler` says."""
    is_connected = asyncio.Event()
    handled = asyncio.get_running_loop().create_future()

    async def handle(reader, writer):
        is_connected.set()
        try:
            handled.set_result(await handler(reader, writer))
        except Exception as error:  # to be raised where the check waits
            handled.set_exception(error)
        finally:
            writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        _, port = server.sockets[0].getsockname()
        run = await run_client(client, *options, f"ws://127.0.0.1:{port}/", *arguments)
        if not is_connected.is_set():
            raise AssertionError(f"the client never connected: {run.stderr!r}")
        await handled
    return run


async def accepted(reader, writer, greeting=b"", extensions=(), **options):
    """A peer whose handshake with our client is done; `greeting` goes out with the response."""
    peer = Peer(ConnectionType.SERVER, reader, writer, **options)
    equal(type(await peer.receive()), Request)
    response = AcceptConnection(extensions=list(extensions))
    await peer.write(peer.protocol.send(response) + greeting)
    return peer


@check("client reads a response and frames that come one byte at a time")
async def _(_, client):
    async def echo_dripping(reader, writer):
        peer = await accepted(reader, writer, dripping=True)
        for _ in range(2):
            await peer.send(TextMessage(await peer.receive_message()))
        await peer.receive_close(1000)

    run = await client_against(echo_dripping, client, "κόσμε", "x" * 126)
    run.expect_replies("κόσμε", "x" * 126)


@check("client answers a ping in the middle of a fragmented message")
async def _(_, client):
    async def interrupt(reader, writer):
        peer = await accepted(reader, writer)
        equal(await peer.receive_message(), "hi")
        await peer.send(TextMessage("Hel", message_finished=False), Ping(b"now"))
        equal(await peer.receive(), Pong(b"now"))
        await peer.send(TextMessage("lo"))
        await peer.receive_close(1000)

    (await client_against(interrupt, client, "hi")).expect_replies("Hello")


@check("client reads a frame that comes in one segment with the response")
async def _(_, client):
    async def greet(reader, writer):
        peer = await accepted(reader, writer, greeting=frame(TEXT, b"welcome", masked=False))
        equal(await peer.receive_message(), "hi")
        await peer.receive_close(1000)

    (await client_against(greet, client, "hi")).expect_replies("welcome")


async def client_closes(client, code, data):
    async def misbehave(reader, writer):
        peer = await accepted(reader, writer)
        equal(await peer.receive_message(), "hi")
        await peer.write(data)
        await peer.receive_close(code)

    (await client_against(misbehave, client, "hi")).expect_failure()


@check("client closes with 1002 on a masked frame")
async def _(_, client):
    await client_closes(client, 1002, frame(TEXT, b"hi", masked=True))


@check("client closes with 1007 on text that is not UTF-8")
async def _(_, client):
    await client_closes(client, 1007, frame(TEXT, b"\xff", masked=False))


@check("client refuses a response that accepts another key")
async def _(_, client):
    async def accept_another(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        )
        # Not one frame follows from it.
        with contextlib.suppress(ConnectionError):
            equal(await reader.read(), b"")

    (await client_against(accept_another, client, "hi")).expect_failure()


# permessage-deflate (RFC 7692), both ways.


class Deflate(PerMessageDeflate):
    """Theirs; notes RSV1 and the payload's length of each data frame that comes to it."""

    def __init__(self, **options):
        super().__init__(**options)
        self.frames = []

    def frame_inbound_header(self, proto, opcode, rsv, payload_length):
        if not opcode.iscontrol():
            self.frames.append((rsv.rsv1, payload_length))
        return super().frame_inbound_header(proto, opcode, rsv, payload_length)


async def talk_compressed(peer, deflate, kind, keeps_context):
    """Has messages echoed by our end, whose `--deflate` is `kind`."""
    equal(deflate.enabled(), True)
    for size in DEFLATE_SIZES:
        await peer.send(TextMessage(json_text(size)))
        equal(await peer.receive_message(), json_text(size))
        await peer.send(BytesMessage(random_bytes(size)))
        equal(await peer.receive_message(), random_bytes(size))
    for _ in range(2):
        await peer.send(BytesMessage(random_bytes(TWICE)))
        equal(await peer.receive_message(), random_bytes(TWICE))
    expect_compressed(deflate.frames, kind, keeps_context)

    messages = [json_text(index) for index in range(600)]
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(peer.send(*map(TextMessage, messages)))
        equal([await peer.receive_message() for _ in messages], messages)

    await peer.send(TextMessage(json_text(70000), message_finished=False), Ping(b"now"))
    equal(await peer.receive(), Pong(b"now"))
    await peer.send(TextMessage("", message_finished=False), Ping(b"and now"))
    equal(await peer.receive(), Pong(b"and now"))
    await peer.send(TextMessage(json_text(5000)))
    equal(await peer.receive_message(), json_text(70000) + json_text(5000))


def deflate_checks(kind, name, no_contexts, windows):
    """The checks of one configuration of theirs against one of ours.

    `no_contexts` and `windows` are what theirs asks for: (server, client).
    """
    # Ours keeps no context by default, whatever they ask for.
    server_quiet, client_quiet = agreed = (True, True) if kind == "default" else no_contexts

    def theirs():
        return Deflate(
            server_no_context_takeover=no_contexts[0],
            client_no_context_takeover=no_contexts[1],
            server_max_window_bits=windows[0],
            client_max_window_bits=windows[1],
        )

    def expect_agreed(deflate):
        quiet = (deflate.server_no_context_takeover, deflate.client_no_context_takeover)
        equal(quiet, agreed)
        equal((deflate.server_max_window_bits, deflate.client_max_window_bits), windows)

    @check(f"server with --deflate={kind} compresses, their client: {name}")
    async def _(echo_program, _):
        deflate = theirs()
        async with (
            Echo(echo_program, f"--deflate={kind}") as echo,
            connected(echo, extensions=[deflate]) as peer,
        ):
            expect_agreed(deflate)
            await talk_compressed(peer, deflate, kind, not server_quiet)
            await peer.send(CloseConnection(1000))
            await peer.receive_close(1000)

    @check(f"client with --deflate={kind} compresses, their server: {name}")
    async def _(_, client):
        async def talk(reader, writer):
            deflate = theirs()
            peer = await accepted(reader, writer, extensions=[deflate])
            expect_agreed(deflate)
            await talk_compressed(peer, deflate, kind, not client_quiet)
            await peer.send(CloseConnection(1000))
            await peer.receive_close(1000)

        run = await client_against(talk, client, options=["--echo", f"--deflate={kind}"])
        run.expect_replies()


for kind in THRESHOLDS:
    deflate_checks(kind, "as it comes", (False, False), (15, 15))
    deflate_checks(kind, "no contexts", (True, True), (15, 15))
    deflate_checks(kind, "no context of the server", (True, False), (15, 15))
    deflate_checks(kind, "no context of the client", (False, True), (15, 15))
    deflate_checks(kind, "windows of 9 bits", (False, False), (9, 9))
    deflate_checks(kind, "windows of 9 and 12 bits, no contexts", (True, True), (9, 12))


@check("server closes with 1002 on RSV1 where only the first frame may have it")
async def _(echo_program, _):
    for data in (
        frame(0xC9, b"compressed ping", masked=True),
        frame(0x41, b"\xf2\x48", masked=True) + frame(0xC0, b"\xcd\xc9\xc9\x07\x00", masked=True),
    ):
        async with (
            Echo(echo_program, "--deflate") as echo,
            connected(echo, extensions=[Deflate()]) as peer,
        ):
            await peer.write(data)
            await peer.receive_close(1002)


@check("server with deflate reads fragments that come one byte at a time")
async def _(echo_program, _):
    deflate = Deflate()
    async with (
        Echo(echo_program, "--deflate=best-ratio") as echo,
        connected(echo, extensions=[deflate], dripping=True) as peer,
    ):
        for text in ("κόσμε" * 20, json_text(300)):
            await peer.send(TextMessage(text[:30], message_finished=False), TextMessage(text[30:]))
            equal(await peer.receive_message(), text)


@check("server limits what a compressed message may become")
async def _(echo_program, _):
    async with (
        Echo(echo_program, "--deflate", "--max-message-size", "100000") as echo,
        connected(echo, extensions=[Deflate()]) as peer,
    ):
        await peer.send(BytesMessage(bytes(100_000)))
        equal(await peer.receive_message(), bytes(100_000))
        await peer.send(BytesMessage(bytes(100_001)))
        await peer.receive_close(1009)


main()
