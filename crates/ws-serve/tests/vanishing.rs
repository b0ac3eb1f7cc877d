//! Clients that vanish anywhere leave nothing behind: no file descriptor, no task, no member (T7, B44).
//! In a file of its own, because descriptors are counted for the whole process.
#![cfg(target_os = "linux")]

#[macro_use]
mod support;

use std::fs;

use support::{
    BINARY, CLOSE, PING, REQUEST, Running, TEXT, close, eventually, masked, reset_on_drop, server,
    within,
};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    runtime::{Builder, Handle},
    task::yield_now,
};
use ws_serve::{Error, Server, Socket};

/// One test, so that nothing else opens descriptors meanwhile.
#[test]
fn clients_that_vanish_at_any_byte_leave_nothing_behind() {
    let current_thread = || Builder::new_current_thread();
    let multi_thread = || {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(2);
        builder
    };
    for (mut builder, workers) in
        [(current_thread(), 0), (multi_thread(), 0), (current_thread(), 2)]
    {
        let runtime = builder.enable_all().build().unwrap();
        runtime.block_on(vanish_everywhere(server().workers(workers)));
    }
}

async fn chat(mut socket: Socket) -> Result<(), Error> {
    socket.join("room");
    let lobby = socket.topic("lobby");
    lobby.join(&socket);
    while let Some(message) = socket.receive().await? {
        socket.publish("room", message.clone());
        lobby.publish_except(&socket, message.clone());
        socket.send(message).await?;
    }
    Ok(())
}

async fn vanish_everywhere(server: Server) {
    let conversation = [
        REQUEST.as_bytes(),
        &masked(TEXT, "hello"),
        &masked(PING, "p"),
        &masked(0x01, "frag"),
        &masked(0x80, "ment"),
        &masked(BINARY, vec![0; 200]),
        &masked(CLOSE, close(1000, "bye")),
    ]
    .concat();
    let running = Running::start(server, chat);
    // What is made once, on first use, is not a leak.
    for _ in 0..10 {
        drop(within(running.client()).await);
    }
    let before = within(settled()).await;

    for cut in 0..=conversation.len() {
        for reset in [false, true] {
            let stream = TcpStream::connect(running.address).await.expect("the server listens");
            if reset {
                reset_on_drop(&stream);
            }
            let mut stream = stream;
            stream.write_all(&conversation[..cut]).await.expect("the server is there");
            if cut % 3 == 0 {
                // The server has begun to answer, or is about to.
                yield_now().await;
            }
        }
    }
    within(eventually(|| running.topics.is_empty())).await;
    within(eventually(|| in_use() == before)).await;
    within(running.end()).await;
}

/// File descriptors of the process and tasks of this runtime.
fn in_use() -> (usize, usize) {
    let fds = fs::read_dir("/proc/self/fd").expect("Linux").count();
    (fds, Handle::current().metrics().num_alive_tasks())
}

/// What is in use when nothing happens any more.
async fn settled() -> (usize, usize) {
    let mut seen = (in_use(), 0);
    while seen.1 < 2000 {
        yield_now().await;
        let now = in_use();
        seen = if now == seen.0 { (now, seen.1 + 1) } else { (now, 0) };
    }
    seen.0
}
