//! The carrier seam and everything above it: server, agent, routing, policy and relay
