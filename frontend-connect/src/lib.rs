//! The HTTP CONNECT frontend over TCP, TLS and Unix sockets
