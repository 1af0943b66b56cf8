//! A socket in front of a libvirtd that fails at a chosen moment.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

/// `REMOTE_PROC_DOMAIN_DEFINE_XML_FLAGS` in libvirt's `src/remote/remote_protocol.x`.
const DEFINE: u32 = 350;

/// `REMOTE_PROC_DOMAIN_GET_XML_DESC`, there too.
const GET_XML: u32 = 14;

/// From when on nothing is passed on any more, or what happens instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// From the second connection on: the first one is for the first look.
    SecondConnection,
    /// Instead of the call that defines a guest.
    Define,
    /// Instead of the call after that.
    AfterDefine,
    /// Never, but the call that defines a guest waits until [`Proxy::go`] is used.
    Nothing,
    /// A connection ends when it asks for the XML of a domain for the second time.
    EndAtSecondXml,
}

/// The proxy; its threads end with its connections.
pub struct Proxy {
    uri: String,
    defining: mpsc::Receiver<()>,
    go: mpsc::Sender<()>,
}

impl Proxy {
    /// Listens at `socket` for calls to the libvirtd at `target`.
    pub fn start(socket: &Path, target: PathBuf, fault: Fault) -> Self {
        let listener = UnixListener::bind(socket).expect("a socket");
        let (reached, defining) = mpsc::channel();
        let (go, may_go) = mpsc::channel();
        thread::spawn(move || {
            let mut may_go = Some(may_go);
            for (number, client) in listener.incoming().enumerate() {
                let (client, server) = (client.expect("a connection"), UnixStream::connect(&target).expect("libvirtd"));
                let is_silent = Arc::new(AtomicBool::new(fault == Fault::SecondConnection && number > 0));
                let back = (server.try_clone().expect("a handle"), client.try_clone().expect("a handle"));
                let replies = Arc::clone(&is_silent);
                thread::spawn(move || {
                    pass_on(back.0, back.1, |_| if replies.load(Ordering::SeqCst) { Then::Drop } else { Then::Pass });
                });
                // The second connection is the one that defines.
                let may_go = if number > 0 { may_go.take() } else { None };
                let reached = reached.clone();
                let (mut has_defined, mut asked) = (false, 0);
                thread::spawn(move || {
                    pass_on(client, server, |procedure| {
                        let stops = match fault {
                            Fault::Define => procedure == DEFINE,
                            Fault::AfterDefine => has_defined,
                            Fault::SecondConnection | Fault::Nothing | Fault::EndAtSecondXml => false,
                        };
                        asked += u32::from(procedure == GET_XML);
                        if fault == Fault::EndAtSecondXml && asked == 2 {
                            return Then::End;
                        }
                        is_silent.fetch_or(stops, Ordering::SeqCst);
                        if procedure == DEFINE {
                            has_defined = true;
                            let _ = reached.send(());
                            if fault == Fault::Nothing {
                                let _ = may_go.as_ref().map(mpsc::Receiver::recv);
                            }
                        }
                        if is_silent.load(Ordering::SeqCst) { Then::Drop } else { Then::Pass }
                    });
                });
            }
        });
        Self { uri: format!("qemu+unix:///system?socket={}", socket.display()), defining, go }
    }

    /// Where the libvirtd is reached through it.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Waits for the call that defines a guest.
    pub fn wait_for_define(&self) {
        self.defining.recv_timeout(crate::common::PATIENCE).expect("a guest is defined");
    }

    /// Whether a guest was to be defined.
    pub fn saw_define(&self) -> bool {
        self.defining.try_recv().is_ok()
    }

    /// Lets that call pass.
    pub fn go(&self) {
        self.go.send(()).expect("it waits");
    }
}

/// What becomes of a message.
enum Then {
    Pass,
    Drop,
    /// It is dropped, and the connection ends.
    End,
}

/// Passes messages on as long as there are any; `then` decides on each by its procedure.
fn pass_on(mut from: UnixStream, mut to: UnixStream, mut then: impl FnMut(u32) -> Then) {
    while let Ok(message) = message(&mut from) {
        let procedure = u32::from_be_bytes(message[12..16].try_into().expect("four bytes"));
        match then(procedure) {
            Then::Pass if to.write_all(&message).is_ok() => {}
            Then::Drop => {}
            Then::Pass | Then::End => break,
        }
    }
    // Either side may be gone.
    let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
}

/// A message with its header: length, program, version, procedure and three more, four bytes each (`virNetMessageHeader`
/// in libvirt's `src/rpc/virnetprotocol.x`).
fn message(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut message = length.to_vec();
    message.resize(u32::from_be_bytes(length) as usize, 0);
    stream.read_exact(&mut message[4..])?;
    Ok(message)
}
