//! TLS material as the flags name it.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use tunnel_tls::{ClientAuth, ClientTls, Pem, ServerTls, Trust};

use crate::{
    cli::{AgentArgs, AgentAuth, ClientCerts, ServerArgs},
    connect::UpstreamSpec,
};

/// What agents meet where there is TLS: the server's certificate, and whether they need one of their own.
pub fn for_agents(args: &ServerArgs) -> anyhow::Result<ServerTls> {
    let (Some(cert), Some(key)) = (&args.tls_cert, &args.tls_key) else {
        bail!("agents need a server certificate: give --tls-cert and --tls-key (or try --dev)");
    };
    let auth = match (&args.agent_ca, agent_auth(args)?) {
        (Some(ca), AgentAuth::Certificate | AgentAuth::Both) => ClientAuth::Required(Trust::ca(Pem::file(ca))),
        (Some(ca), AgentAuth::Either) => ClientAuth::Optional(Trust::ca(Pem::file(ca))),
        _ => ClientAuth::None,
    };
    let tls = ServerTls::builder(Pem::file(cert), Pem::file(key)).client_auth(auth);
    tls.build()
        .context("the certificates for agents (--tls-cert, --tls-key, --agent-ca)")
}

/// What an agent must prove, as said or as the given files imply.
pub fn agent_auth(args: &ServerArgs) -> anyhow::Result<AgentAuth> {
    let (ca, tokens) = (args.agent_ca.is_some(), args.agent_tokens.is_some());
    let auth = match args.agent_auth {
        Some(auth) => auth,
        None => match (ca, tokens) {
            (true, true) => AgentAuth::Either,
            (true, false) => AgentAuth::Certificate,
            (false, true) => AgentAuth::Token,
            (false, false) => bail!("nothing says which agents may connect: give --agent-ca, --agent-tokens or both"),
        },
    };
    let missing = match auth {
        AgentAuth::Certificate => (!ca).then_some("--agent-ca"),
        AgentAuth::Token => (!tokens).then_some("--agent-tokens"),
        AgentAuth::Either | AgentAuth::Both => (!ca || !tokens).then_some("both --agent-ca and --agent-tokens"),
    };
    match missing {
        Some(files) => bail!("--agent-auth {auth:?} needs {files}"),
        None => Ok(auth),
    }
}

/// What clients meet at a frontend with TLS.
pub fn for_clients(args: &ServerArgs) -> anyhow::Result<ServerTls> {
    let (cert, key) = match (&args.frontend_cert, &args.frontend_key) {
        (Some(cert), Some(key)) => (cert, key),
        (None, None) => match (&args.tls_cert, &args.tls_key) {
            (Some(cert), Some(key)) => (cert, key),
            _ => bail!("connect+tls needs a certificate: give --frontend-cert and --frontend-key"),
        },
        _ => bail!("--frontend-cert and --frontend-key belong together"),
    };
    let auth = match (&args.client_ca, args.client_certs) {
        (Some(ca), ClientCerts::Required) => ClientAuth::Required(Trust::ca(Pem::file(ca))),
        (Some(ca), ClientCerts::Optional) => ClientAuth::Optional(Trust::ca(Pem::file(ca))),
        (None, _) => ClientAuth::None,
    };
    let tls = ServerTls::builder(Pem::file(cert), Pem::file(key)).client_auth(auth);
    tls.build()
        .context("the certificates for clients (--frontend-cert, --frontend-key, --client-ca)")
}

/// What an agent trusts and shows where there is TLS.
pub fn for_servers(args: &AgentArgs) -> anyhow::Result<ClientTls> {
    let Some(ca) = &args.ca else {
        bail!("nothing says which servers to trust: give --ca");
    };
    let mut tls = ClientTls::builder(Trust::ca(Pem::file(ca)));
    match (&args.cert, &args.key) {
        (Some(cert), Some(key)) => tls = tls.certificate(Pem::file(cert), Pem::file(key)),
        (None, None) if args.token_file.is_some() => {}
        (None, None) => bail!("this agent has nothing to prove itself with: give --cert and --key, or --token-file"),
        _ => bail!("--cert and --key belong together"),
    }
    if let Some(name) = &args.server_name {
        tls = tls.server_name(name);
    }
    tls.build()
        .context("the certificates for servers (--ca, --cert, --key)")
}

/// What an upstream is verified by, and what it is shown.
pub fn for_upstream(args: &ServerArgs, spec: &UpstreamSpec) -> anyhow::Result<ClientTls> {
    let Some(ca) = &args.upstream_ca else {
        bail!("nothing says which upstreams to trust: give --upstream-ca");
    };
    let mut tls = ClientTls::builder(Trust::ca(Pem::file(ca))).spiffe(&spec.spiffe);
    match (&args.upstream_cert, &args.upstream_key) {
        (Some(cert), Some(key)) => tls = tls.certificate(Pem::file(cert), Pem::file(key)),
        (None, None) if spec.scheme.is_hbone() => {
            bail!("hbone:// needs a certificate on both sides: give --upstream-cert and --upstream-key")
        }
        (None, None) => {}
        _ => bail!("--upstream-cert and --upstream-key belong together"),
    }
    if let Some(name) = &spec.server_name {
        tls = tls.server_name(name);
    }
    let context = || format!("the certificates for {spec} (--upstream-ca, --upstream-cert, --upstream-key)");
    tls.build().with_context(context)
}

/// What those meet who connect to an agent.
pub fn for_callers(args: &AgentArgs) -> anyhow::Result<ServerTls> {
    let (cert, key) = match (&args.forward_cert, &args.forward_key) {
        (Some(cert), Some(key)) => (cert, key),
        (None, None) => match (&args.cert, &args.key) {
            (Some(cert), Some(key)) => (cert, key),
            _ => bail!("h2:// and hbone:// of --forward need a certificate: give --forward-cert and --forward-key"),
        },
        _ => bail!("--forward-cert and --forward-key belong together"),
    };
    let auth = match &args.forward_client_ca {
        Some(ca) => ClientAuth::Required(Trust::ca(Pem::file(ca))),
        None => ClientAuth::None,
    };
    let tls = ServerTls::builder(Pem::file(cert), Pem::file(key)).client_auth(auth);
    tls.build()
        .context("the certificates of --forward (--forward-cert, --forward-key, --forward-client-ca)")
}

/// A file's content without the white space around it.
pub fn read_token(path: &PathBuf) -> anyhow::Result<String> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read the token file {}", path.display()))?;
    let token = text.trim();
    if token.is_empty() {
        bail!("the token file {} is empty", path.display());
    }
    Ok(token.to_owned())
}
