//! Byte pipes of any kind.

use std::fmt;

use tokio::io::{AsyncRead, AsyncWrite};

/// A byte pipe with a clean end in each direction: a TCP socket, TLS on top of one, or a simulated one.
pub trait Io: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin + ?Sized> Io for T {}

/// A byte pipe whose kind is not known.
pub type BoxIo = Box<dyn Io>;
