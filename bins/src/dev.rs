//! `--dev`: a development CA, certificates and a token in one directory, and what to type next.

use std::{
    env, fs,
    io::Write as _,
    net::{IpAddr, SocketAddr},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use tunnel_tls::{CertName, DevCa, Purpose};

use crate::carriers::ListenSpec;

/// The name under which the token's holder appears in policy and logs.
pub const TOKEN_NAME: &str = "dev";

/// The name that every development certificate proves, whatever address it is reached by.
pub const SERVER_NAME: &str = "localhost";

/// The files of a development server.
#[derive(Clone, Debug)]
pub struct Dev {
    /// The CA certificate, for agents to trust.
    pub ca: PathBuf,
    /// The server's certificate chain.
    pub cert: PathBuf,
    /// The server's private key.
    pub key: PathBuf,
    /// The token that agents show.
    pub token: PathBuf,
    /// The same token with its name, as the server reads it.
    pub tokens: PathBuf,
}

impl Dev {
    /// Creates what is missing in the directory, and renews what is about to expire.
    pub fn prepare(dir: &Path) -> anyhow::Result<Self> {
        if let Some(parent) = dir.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
        }
        let ca = DevCa::create_or_load(dir)?;
        let names = [
            CertName::Dns(SERVER_NAME.to_owned()),
            CertName::Ip(IpAddr::from([127, 0, 0, 1])),
            CertName::Ip(std::net::Ipv6Addr::LOCALHOST.into()),
        ];
        let server = ca.ensure("server", &names, Purpose::Server)?;
        let dev = Self {
            ca: ca.certificate_file(),
            cert: server.chain,
            key: server.key,
            token: dir.join("token"),
            tokens: dir.join("tokens"),
        };
        dev.ensure_token()?;
        Ok(dev)
    }

    /// The token is made once, so that agents elsewhere go on working when the server is started again.
    fn ensure_token(&self) -> anyhow::Result<()> {
        let token = match fs::read_to_string(&self.token) {
            Ok(text) => text.trim().to_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let token = random_token()?;
                write_private(&self.token, &format!("{token}\n"))?;
                token
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", self.token.display())),
        };
        write_private(&self.tokens, &format!("{TOKEN_NAME} {token}\n"))
    }
}

/// `tunnel-dev` in the user's state directory (XDG Base Directory Specification).
pub fn default_dir() -> anyhow::Result<PathBuf> {
    let absolute = |variable: &str| {
        env::var_os(variable)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    let state =
        state.ok_or_else(|| anyhow!("neither HOME nor XDG_STATE_HOME is set; name a directory with --state-dir"))?;
    Ok(state.join("tunnel-dev"))
}

/// What to type next, for people.
#[must_use]
pub fn next_steps(dev: &Dev, frontend: SocketAddr, carrier: &ListenSpec, addr: SocketAddr) -> String {
    let (ca, token) = (dev.ca.display(), dev.token.display());
    let port = addr.port();
    let agent = |host: &str| {
        let url = carrier.url(&format!("{host}:{port}"));
        format!("tunnel-agent --server {url} --server-name {SERVER_NAME} --id my-agent --ca {ca} --token-file {token}")
    };
    let elsewhere = if addr.ip().is_loopback() {
        let everywhere = carrier.url(&format!("0.0.0.0:{port}"));
        format!(
            "An agent on another machine: start this with --carrier {everywhere}, copy the two files over, and type there\n\n  {}\n",
            agent("THIS-HOST")
        )
    } else {
        let host = match addr {
            addr if addr.ip().is_unspecified() => "THIS-HOST".to_owned(),
            SocketAddr::V4(addr) => addr.ip().to_string(),
            SocketAddr::V6(addr) => format!("[{}]", addr.ip()),
        };
        format!(
            "An agent on another machine: copy the two files over, and type there\n\n  {}\n",
            agent(&host)
        )
    };
    format!(
        "\nReady. Fetch something through the tunnel:\n\n  curl -p -x http://{frontend} http://127.0.0.1:8000/\n\n\
         (for example with `python3 -m http.server 8000 --bind 127.0.0.1` in another terminal)\n\n{elsewhere}"
    )
}

fn random_token() -> anyhow::Result<String> {
    let mut bytes = [0; 32];
    tunnel_tls::provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| anyhow!("the system gives no random numbers"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Replaces the file at once, readable by its owner alone.
fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    let write = || {
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&temporary, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_second_start_keeps_the_token_and_the_ca() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state/tunnel-dev");
        let first = Dev::prepare(&state).unwrap();
        let before = [fs::read(&first.token).unwrap(), fs::read(&first.ca).unwrap()];
        let second = Dev::prepare(&state).unwrap();
        assert_eq!(
            before,
            [fs::read(&second.token).unwrap(), fs::read(&second.ca).unwrap()]
        );
        let tokens = fs::read_to_string(&second.tokens).unwrap();
        assert_eq!(
            tokens.trim(),
            format!("dev {}", String::from_utf8_lossy(&before[0]).trim())
        );
        for file in [&second.token, &second.tokens, &second.key] {
            assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
