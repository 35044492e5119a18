//! The QUIC carrier: one QUIC stream per tunnel stream
