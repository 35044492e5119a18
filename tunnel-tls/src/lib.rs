//! Certificates: loading, hot reload, verification, peer identity and a development CA
