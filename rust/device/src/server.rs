// SPDX-License-Identifier: MIT OR Apache-2.0

//! The running model: one socket and one thread per peer, and the soft inmates.
//!
//! Owns the sockets. A client that dies, or talks nonsense, ends its connection and nothing else;
//! the thread then waits for the next client.

use crate::backend;
use crate::backend::Backend;
use crate::control::Control;
use crate::control::ControlError;
use crate::inmate::InmateSpec;
use crate::link::Link;
use crate::link::SharedLink;
use crate::spec::LinkSpec;
use rustix::event::poll;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::net::Shutdown;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::os::unix::net::UnixListener;
use std::panic::catch_unwind;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use thiserror::Error;
use vfio_user::Server;

/// Stack of a peer's thread in bytes: there may be thousands of them, and they do little.
const STACK_SIZE: usize = 256 * 1024;

/// The option from which the peers' sockets are.
const SOCKET_DIR: &str = "--socket-dir";

/// The option from which the socket for commands is.
const CONTROL: &str = "--control";

/// How long to wait after the system has refused a connection (too many open files, say).
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

/// Why the model did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// No memory for the link.
    #[error("cannot have {size:#x} bytes of shared memory ({source}): use smaller sections")]
    Memory {
        /// How much was wanted.
        size: u64,
        /// What the system said.
        source: rustix::io::Errno,
    },
    /// The directory for the sockets cannot be made.
    #[error("cannot make the directory {path:?} ({source}): choose another {SOCKET_DIR}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The path of a socket is longer than the system allows.
    #[error("the socket path {path:?} is too long for the system: choose a shorter {option}")]
    PathTooLong {
        /// The socket.
        path: PathBuf,
        /// The option that says where it is.
        option: &'static str,
    },
    /// Somebody listens there already.
    #[error("somebody listens at {path:?} already: end that process or choose another {option}")]
    InUse {
        /// The socket.
        path: PathBuf,
        /// The option that says where it is.
        option: &'static str,
    },
    /// Something that is not a socket is in the way.
    #[error("{path:?} is not a socket: remove it or choose another {option}")]
    NotASocket {
        /// What is in the way.
        path: PathBuf,
        /// The option that says where the socket is to be.
        option: &'static str,
    },
    /// The socket cannot be made.
    #[error("cannot listen at {path:?} ({source}): choose another {option}")]
    Listen {
        /// The socket.
        path: PathBuf,
        /// The option that says where it is.
        option: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The system allows too few open files for so many peers.
    #[error("too many open files for this system: use fewer peers or raise `ulimit -n`")]
    TooManyFiles,
    /// A soft inmate is for a peer that does not exist.
    #[error("inmate {peer} is not below the number of peers {max_peers}: use a peer of the link")]
    InmatePeer {
        /// Its peer ID.
        peer: u16,
        /// Number of peers.
        max_peers: u16,
    },
    /// Two soft inmates are for the same peer.
    #[error("there are two inmates for peer {0}: give each its own peer")]
    InmateTwice(u16),
    /// The link has no place for a soft inmate.
    #[error(transparent)]
    InmateUnfit(#[from] crate::inmate::Unfit),
    /// A command for the start has no effect.
    #[error("--command {line:?}: {source}")]
    Command {
        /// The command.
        line: String,
        /// What is wrong with it.
        source: ControlError,
    },
    /// No thread for the control socket.
    #[error("cannot start a thread for the control socket ({0}): use fewer peers")]
    ControlThread(io::Error),
    /// A soft inmate does not start.
    #[error("inmate {peer}: {source}")]
    Inmate {
        /// Its peer ID.
        peer: u16,
        /// Why.
        source: ControlError,
    },
    /// No thread for a peer.
    #[error("cannot start a thread for peer {peer} ({source}): use fewer peers")]
    Thread {
        /// The peer.
        peer: u16,
        /// What the system said.
        source: io::Error,
    },
}

/// A link with its sockets. Dropped, it stops listening and removes them; clients that are
/// connected stay so until they leave or the process ends.
#[derive(Debug)]
pub struct Model {
    link: SharedLink,
    sockets: Vec<Socket>,
    stopping: Arc<AtomicBool>,
    control: Control,
}

#[derive(Debug)]
struct Socket {
    path: PathBuf,
    listener: Arc<UnixListener>,
}

/// The socket of `peer` in `directory`.
#[must_use]
pub fn socket_path(directory: &Path, peer: u16) -> PathBuf {
    directory.join(format!("peer{peer}.sock"))
}

impl Model {
    /// Makes the link and its sockets `peerK.sock` in `directory`, and starts the soft inmates.
    /// When this returns, all sockets accept connections.
    ///
    /// # Errors
    ///
    /// [`StartError`], which says what to do.
    pub fn start(
        spec: LinkSpec,
        directory: &Path,
        inmates: &[InmateSpec],
    ) -> Result<Self, StartError> {
        check_inmates(&spec, inmates)?;
        fs::create_dir_all(directory).map_err(|source| StartError::Directory {
            path: directory.into(),
            source,
        })?;
        let size = spec.memory_bar_size();
        let peers = spec.peers();
        let link = Link::new(spec).map_err(|source| StartError::Memory { size, source })?;
        let link = SharedLink::new(link);
        let mut model = Self {
            control: Control::new(link.clone()),
            link,
            sockets: Vec::new(),
            stopping: Arc::default(),
        };
        for &spec in inmates {
            let peer = spec.peer;
            let started = model.control.start_inmate(spec);
            started.map_err(|source| StartError::Inmate { peer, source })?;
        }
        for peer in peers {
            if inmates.iter().all(|inmate| inmate.peer != peer) {
                model.serve(directory, peer)?;
            }
        }
        Ok(model)
    }

    /// The link.
    #[must_use]
    pub fn link(&self) -> &SharedLink {
        &self.link
    }

    /// What makes things go wrong.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Listens for commands at the socket `path`.
    ///
    /// # Errors
    ///
    /// [`StartError`], which says what to do.
    pub fn listen_for_commands(&mut self, path: &Path) -> Result<(), StartError> {
        let listener = self.keep(path.into(), CONTROL)?;
        let started = self.control.serve(listener);
        started.map_err(StartError::ControlThread)
    }

    /// Listens at `path`, which is from `option`. It is shut down and its socket removed in the end,
    /// whatever fails before.
    fn keep(
        &mut self,
        path: PathBuf,
        option: &'static str,
    ) -> Result<Arc<UnixListener>, StartError> {
        let listener = Arc::new(listen(&path, option)?);
        self.sockets.push(Socket {
            path,
            listener: listener.clone(),
        });
        Ok(listener)
    }

    fn serve(&mut self, directory: &Path, peer: u16) -> Result<(), StartError> {
        let path = socket_path(directory, peer);
        let listener = self.keep(path.clone(), SOCKET_DIR)?;
        // The crate wants one of its own.
        let own = listener
            .try_clone()
            .map_err(|source| listen_error(&path, SOCKET_DIR, source))?;
        let (link, stopping) = (self.link.clone(), self.stopping.clone());
        thread::Builder::new()
            .name(format!("peer {peer}"))
            .stack_size(STACK_SIZE)
            .spawn(move || serve(&listener, own, link, peer, &stopping))
            .map_err(|source| StartError::Thread { peer, source })?;
        Ok(())
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        self.control.stop();
        for socket in &self.sockets {
            // Wakes the thread that waits for a client. Neither can fail in a way that matters.
            let _ = rustix::net::shutdown(&*socket.listener, Shutdown::Both);
            let _ = fs::remove_file(&socket.path);
        }
    }
}

fn check_inmates(spec: &LinkSpec, inmates: &[InmateSpec]) -> Result<(), StartError> {
    for (n, inmate @ &InmateSpec { peer, .. }) in inmates.iter().enumerate() {
        if !spec.peers().contains(&peer) {
            let max_peers = spec.peers().end;
            return Err(StartError::InmatePeer { peer, max_peers });
        }
        if inmates[..n].iter().any(|earlier| earlier.peer == peer) {
            return Err(StartError::InmateTwice(peer));
        }
        inmate.check(spec)?;
    }
    Ok(())
}

/// Listens at `path`, where nobody does yet; `option` is where it is from. What a process that died
/// has left there is removed.
fn listen(path: &Path, option: &'static str) -> Result<UnixListener, StartError> {
    if SocketAddr::from_pathname(path).is_err() {
        let path = path.into();
        return Err(StartError::PathTooLong { path, option });
    }
    let error = |source| listen_error(path, option, source);
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            let path = path.into();
            return Err(StartError::NotASocket { path, option });
        }
        Ok(_) if is_alive(path) => {
            let path = path.into();
            return Err(StartError::InUse { path, option });
        }
        Ok(_) => fs::remove_file(path).map_err(error)?,
        Err(_) => {}
    }
    UnixListener::bind(path).map_err(error)
}

fn listen_error(path: &Path, option: &'static str, source: io::Error) -> StartError {
    match source
        .raw_os_error()
        .map(rustix::io::Errno::from_raw_os_error)
    {
        Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE) => StartError::TooManyFiles,
        _ => StartError::Listen {
            path: path.into(),
            option,
            source,
        },
    }
}

/// Whether a process has the socket at `path`. A datagram socket cannot connect to it either way,
/// but the refusal tells, and a living server does not notice.
fn is_alive(path: &Path) -> bool {
    let probe = UnixDatagram::unbound().and_then(|socket| socket.connect(path));
    !probe.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Serves one client after the other; `own` is another handle of `listener`. Who comes while a soft
/// inmate is the peer is turned away.
fn serve(
    listener: &UnixListener,
    own: UnixListener,
    link: SharedLink,
    peer: u16,
    stopping: &AtomicBool,
) {
    let (spec, region) = {
        let link = link.lock();
        (link.spec().clone(), link.region().clone())
    };
    let server = Server::from_owned_fd(
        own.into(),
        true,
        backend::irqs(&spec),
        backend::regions(&spec, peer, region.file().as_raw_fd()),
    );
    let mut backend = Backend::new(link.clone(), peer);
    loop {
        wait_for_client(listener);
        if stopping.load(Ordering::Acquire) {
            break;
        }
        let Some(seat) = link.take_seat(peer) else {
            turn_away(listener, peer);
            continue;
        };
        // The crate trusts its client in places and panics if that was wrong.
        let result = catch_unwind(AssertUnwindSafe(|| server.run(&mut backend)));
        backend.disconnected();
        drop(seat);
        match result {
            Ok(Err(vfio_user::Error::SocketAccept(error))) => {
                if !stopping.load(Ordering::Acquire) {
                    tracing::warn!(peer, %error, "no connection accepted");
                    thread::sleep(ACCEPT_RETRY);
                }
            }
            Ok(Err(error)) => tracing::info!(peer, %error, "connection broken"),
            Err(_) => tracing::warn!(peer, "connection dropped: the client broke the protocol"),
            Ok(Ok(())) => {}
        }
    }
}

/// Waits until somebody connects, or the listener is shut down.
fn wait_for_client(listener: &UnixListener) {
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    while poll(&mut fds, None) == Err(rustix::io::Errno::INTR) {}
}

/// Ends the connection of who comes next.
fn turn_away(listener: &UnixListener, peer: u16) {
    match listener.accept() {
        Ok(_) => tracing::warn!(
            peer,
            "client turned away: a soft inmate is this peer until it is told to `die`"
        ),
        Err(error) => {
            tracing::warn!(peer, %error, "no connection accepted");
            thread::sleep(ACCEPT_RETRY);
        }
    }
}
