//! The tunnel-server and tunnel-agent programs
