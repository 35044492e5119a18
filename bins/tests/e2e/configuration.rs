//! Flags, environment and file, and what is said when they are wrong.

use tokio::process::Command;

use crate::support::{Pair, Pki, Process, Server, Tunnel, get, target};

const SERVER: &str = env!("CARGO_BIN_EXE_tunnel-server");
const AGENT: &str = env!("CARGO_BIN_EXE_tunnel-agent");

/// Runs a program to its end: exit code, standard output, standard error.
async fn run(program: &'static str, args: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = Command::new(program);
    command.args(args).envs(environment.iter().copied());
    let mut process = Process::start(program, command);
    let status = process.ended().await;
    (status.code(), process.out.text(), process.log.text())
}

/// Files that a configuration can name.
struct Files {
    pki: Pki,
    server: Pair,
    agent: Pair,
}

impl Files {
    fn new() -> Self {
        let pki = Pki::new();
        let (server, agent) = (pki.server(), pki.agent());
        Self { pki, server, agent }
    }

    /// The text with the words `CERT`, `KEY`, `CA`, `AGENT_CERT`, `AGENT_KEY` and `DIR` filled in.
    fn fill(&self, text: &str) -> String {
        let of_word = |c: char| c.is_ascii_uppercase() || c == '_';
        let mut filled = String::new();
        // In one pass, for a path may hold such a word by chance.
        for piece in text.split_inclusive(|c| !of_word(c)) {
            let (word, rest) = piece.split_at(piece.trim_end_matches(|c| !of_word(c)).len());
            let path = match word {
                "AGENT_CERT" => Some(self.agent.cert.clone()),
                "AGENT_KEY" => Some(self.agent.key.clone()),
                "CERT" => Some(self.server.cert.clone()),
                "KEY" => Some(self.server.key.clone()),
                "CA" => Some(self.pki.trust.clone()),
                "DIR" => Some(self.pki.path("")),
                _ => None,
            };
            filled.push_str(path.as_deref().map_or(word, |path| path.to_str().unwrap()));
            filled.push_str(rest);
        }
        filled
    }

    async fn check(&self, program: &'static str, line: &str) -> (Option<i32>, String, String) {
        let line = self.fill(line);
        let args: Vec<_> = line.split_whitespace().chain(["--check-config"]).collect();
        run(program, &args, &[]).await
    }
}

#[test]
fn only_words_are_filled_in_and_once() {
    let mut files = Files::new();
    files.agent.cert = "/tmp/CA/KEY_DIR".into();
    assert_eq!(
        files.fill("--cert=AGENT_CERT --id=XCA"),
        "--cert=/tmp/CA/KEY_DIR --id=XCA"
    );
}

#[tokio::test]
async fn a_good_configuration_is_fine() {
    let files = Files::new();
    files.pki.write("policy.toml", "default = 'allow'\n");
    for (program, line) in [
        (
            SERVER,
            "--carrier=quic --tls-cert=CERT --tls-key=KEY --agent-ca=CA --frontend=connect://127.0.0.1:0 --policy=DIR/policy.toml",
        ),
        (
            AGENT,
            "--server=quic://gw.example:8091 --id=node-7 --ca=CA --cert=AGENT_CERT --key=AGENT_KEY --label=zone=a",
        ),
    ] {
        let (code, out, log) = files.check(program, line).await;
        assert_eq!((code, out.as_str()), (Some(0), "the configuration is fine"), "{log}");
    }
}

#[tokio::test]
async fn as_many_threads_work_as_are_asked_for() {
    const MANY: usize = 16;
    let many = format!("--threads={MANY}");
    let mut tunnel = Tunnel::with(&["--threads=1"], &[&many]).await;
    assert!(tunnel.agent.threads() > MANY && tunnel.server.process().threads() < MANY);
    assert_eq!(tunnel.server.fetch(target::http("a page\n").await).await, "a page\n");
    // An agent takes few unless it is told otherwise.
    let mut tunnel = Tunnel::with(&[&many], &[]).await;
    assert!(tunnel.server.process().threads() > MANY && tunnel.agent.threads() < MANY);
    assert_eq!(tunnel.server.fetch(target::http("a page\n").await).await, "a page\n");
}

#[tokio::test]
async fn threads_start_where_few_descriptors_are_granted_at_first() {
    let files = Files::new();
    let line =
        files.fill("--server=quic://127.0.0.1:9 --id=node-7 --ca=CA --cert=AGENT_CERT --key=AGENT_KEY --admin=off");
    let mut command = Command::new("sh");
    // Each thread takes several.
    command.args(["-c", "ulimit -Sn 64 && exec \"$0\" \"$@\"", AGENT, "--threads=64"]);
    command.args(line.split_whitespace());
    let agent = Process::start("tunnel-agent", command);
    agent.log.line("agent node-7 starts").await;
}

#[tokio::test]
async fn a_wrong_configuration_is_explained_in_one_sentence() {
    let files = Files::new();
    let write = |name: &str, text: &str| drop(files.pki.write(name, &files.fill(text)));
    write("unknown.toml", "carier = ['quic']\n");
    write("broken.toml", "carrier = \n");
    write("type.toml", "max-streams = 'many'\n");
    write("empty", "");
    write("short", "site-a short\n");
    write("rule.toml", "[[rules]]\nclients = ['*']\nhosts = ['10.0.0.0/99']\n");
    write("agent-rule.toml", "[[rules]]\nhosts = ['10.0.0.0/99']\n");
    write("field.toml", "[[rules]]\nhots = ['10.0.0.0/8']\n");
    write("none.toml", "");

    let server = "--carrier=quic --tls-cert=CERT --tls-key=KEY --agent-ca=CA";
    let agent = "--server=quic://gw.example --ca=CA --cert=AGENT_CERT --key=AGENT_KEY";
    let cases = [
        (
            SERVER,
            "--config=DIR/unknown.toml".to_owned(),
            "unknown.toml: has an unknown key `carier`",
        ),
        (
            SERVER,
            "--config=DIR/broken.toml".to_owned(),
            "DIR/broken.toml is not TOML: line 1: ",
        ),
        (
            SERVER,
            "--config=DIR/type.toml".to_owned(),
            "type.toml: invalid value 'many' for '--max-streams",
        ),
        (
            AGENT,
            format!("{agent} --connections=33"),
            "33 connections with each server are too many; the most is 32",
        ),
        (
            AGENT,
            format!("{agent} --threads=0"),
            "invalid value '0' for '--threads",
        ),
        (
            SERVER,
            "--config=DIR/nowhere.toml".to_owned(),
            "cannot read the configuration file DIR/nowhere.toml: No such file",
        ),
        (
            SERVER,
            "--tls-cert=CERT --tls-key=KEY --agent-ca=CA".to_owned(),
            "nothing to open streams through: give --carrier",
        ),
        (
            SERVER,
            "--upstream=a=h2://p".to_owned(),
            "nothing says which upstreams to trust: give --upstream-ca",
        ),
        (
            SERVER,
            "--upstream=a=hbone://p?spiffe=spiffe://td --upstream-ca=CA".to_owned(),
            "give --upstream-cert and --upstream-key",
        ),
        (
            SERVER,
            "--upstream=a=h2://p --upstream-ca=CA --upstream-cert=AGENT_CERT".to_owned(),
            "--upstream-cert and --upstream-key belong together",
        ),
        (
            SERVER,
            "--upstream=a=h2://p?spiffe=td --upstream-ca=CA".to_owned(),
            "the certificates for a=h2://p:443",
        ),
        (
            SERVER,
            "--upstream=a=h2c://p:1 --upstream=a=h2c://q:1".to_owned(),
            "there are two upstreams named a",
        ),
        (
            SERVER,
            "--upstream=a=quic://p".to_owned(),
            "--upstream a: \"quic\" is nothing that --upstream knows",
        ),
        (
            SERVER,
            "--carrier=quic --agent-ca=CA".to_owned(),
            "give --tls-cert and --tls-key",
        ),
        (
            SERVER,
            "--carrier=quic --tls-cert=CERT --tls-key=KEY".to_owned(),
            "give --agent-ca, --agent-tokens or both",
        ),
        (
            SERVER,
            "--carrier=quic --tls-cert=DIR/nowhere.crt --tls-key=KEY --agent-ca=CA".to_owned(),
            "nowhere.crt",
        ),
        (
            SERVER,
            "--carrier=quic --tls-cert=CERT --tls-key=AGENT_KEY --agent-ca=CA".to_owned(),
            "belong",
        ),
        (
            SERVER,
            "--carrier=quic --tls-cert=DIR/empty --tls-key=KEY --agent-ca=CA".to_owned(),
            "DIR/empty",
        ),
        (
            SERVER,
            "--carrier=smoke --tls-cert=CERT --tls-key=KEY --agent-ca=CA".to_owned(),
            "\"smoke\" is no carrier",
        ),
        (SERVER, format!("{server} --carrier=quic://nowhere"), "quic://nowhere"),
        (
            SERVER,
            format!("{server} --frontend=sock://127.0.0.1:1"),
            "\"sock\" is no frontend",
        ),
        (
            SERVER,
            format!("{server} --frontend=connect+unix://x.sock"),
            "does not name an absolute path",
        ),
        (
            SERVER,
            format!("{server} --agent-tokens=DIR/empty"),
            "there is no token in the list",
        ),
        (
            SERVER,
            format!("{server} --agent-tokens=DIR/short"),
            "the token on line 1 must have 16 to",
        ),
        (
            SERVER,
            format!("{server} --agent-auth=both"),
            "needs both --agent-ca and --agent-tokens",
        ),
        (SERVER, format!("{server} --policy=DIR/rule.toml"), "10.0.0.0/99"),
        (
            SERVER,
            format!("{server} --policy=DIR/field.toml"),
            "DIR/field.toml, line 2: unknown field `hots`",
        ),
        (
            SERVER,
            format!("{server} --policy=DIR/none.toml"),
            "the policy has no rules",
        ),
        (
            SERVER,
            format!("{server} --keepalive-interval=soon"),
            "invalid value 'soon' for '--keepalive-interval",
        ),
        (
            SERVER,
            format!("{server} --keepalive-interval=1ms --keepalive-timeout=1ms"),
            "keepalive must add up to between 300 ms and an hour",
        ),
        (
            SERVER,
            format!("{server} --log=loud=very"),
            "--log \"loud=very\" is not a filter",
        ),
        (SERVER, format!("{server} --id=gw/1"), "--id \"gw/1\""),
        (
            AGENT,
            "--ca=CA --cert=AGENT_CERT --key=AGENT_KEY".to_owned(),
            "there is no server to connect to: give --server",
        ),
        (
            AGENT,
            "--server=quic://gw.example --cert=AGENT_CERT --key=AGENT_KEY".to_owned(),
            "nothing says which servers to trust: give --ca",
        ),
        (
            AGENT,
            "--server=quic://gw.example --ca=CA".to_owned(),
            "nothing to prove itself with",
        ),
        (
            AGENT,
            "--server=quic://gw.example --ca=CA --cert=AGENT_CERT".to_owned(),
            "--cert and --key belong together",
        ),
        (
            AGENT,
            "--server=quic://gw.example --ca=CA --token-file=DIR/empty".to_owned(),
            "the token file DIR/empty is empty",
        ),
        (
            AGENT,
            "--server=gw.example --ca=CA --token-file=DIR/short".to_owned(),
            "\"gw.example\"",
        ),
        (
            AGENT,
            "--server=smoke://gw.example --ca=CA --token-file=DIR/short".to_owned(),
            "\"smoke\" is no carrier",
        ),
        (
            AGENT,
            format!("{agent} --server=wss://gw.example --ws-header=Host:a --ws-header=Hunter2"),
            "--ws-header number 2 is not NAME: VALUE",
        ),
        (
            AGENT,
            format!("{agent} --server=wss://gw.example --ws-header=Upgrade:hunter2"),
            "--ws-header number 1: header must not be one of the upgrade itself",
        ),
        (
            AGENT,
            format!("{agent} --server=wss://gw.example --ws-header=(hunter2):x"),
            "--ws-header number 1: header must have a name of letters, digits and `-`",
        ),
        (
            AGENT,
            format!("{agent} --server=wss://gw.example --ws-header=X-Hunter2:\u{1}"),
            "--ws-header number 1: header must have a value of visible ASCII characters",
        ),
        (
            AGENT,
            format!("{agent} --label=zone"),
            "--label \"zone\" is not NAME=VALUE",
        ),
        (AGENT, format!("{agent} --policy=DIR/agent-rule.toml"), "10.0.0.0/99"),
        (
            AGENT,
            format!("{agent} --tcp-memory=1KiB"),
            "--tcp-memory is less than 1 MiB",
        ),
        #[cfg(target_os = "linux")]
        (
            SERVER,
            format!("{server} --tcp-congestion=brr"),
            "--tcp-congestion: the kernel does not allow \"brr\"",
        ),
        (
            AGENT,
            "--forward=h2://127.0.0.1:0 --forward-client-ca=CA".to_owned(),
            "give --forward-cert and --forward-key",
        ),
        (
            AGENT,
            "--forward=h2://127.0.0.1:0 --forward-cert=CERT --forward-key=KEY".to_owned(),
            "nothing says who may connect to h2://127.0.0.1:0: give --forward-client-ca",
        ),
        (
            AGENT,
            "--forward=h2c://0.0.0.0:0".to_owned(),
            "h2c://0.0.0.0:0 would let whoever reaches it use this agent",
        ),
        (
            AGENT,
            "--forward=h2c://127.0.0.1:0 --forward-client=cn:gw".to_owned(),
            "--forward-client asks for proof of who connects",
        ),
        (
            AGENT,
            "--forward=wss://127.0.0.1:0".to_owned(),
            "\"wss\" is nothing that --forward knows; there is h2://, h2c://, hbone://",
        ),
        (
            AGENT,
            "--forward=h2c://gw.example:1".to_owned(),
            "does not name an address and a port to listen on",
        ),
    ];
    for (program, line, part) in cases {
        let (code, out, log) = files.check(program, &line).await;
        assert_eq!((code, out.as_str()), (Some(2), ""), "{line}: {log}");
        let error = log
            .lines()
            .find_map(|line| line.strip_prefix("error: "))
            .unwrap_or_default();
        let part = files.fill(part);
        assert!(error.contains(&part), "{line}\n  should say {part:?}\n  and says {log}");
    }
}

#[tokio::test]
async fn what_is_wrong_is_also_said_without_a_check() {
    let (code, _, log) = run(SERVER, &["--frontend=connect://127.0.0.1:0"], &[]).await;
    assert_eq!(code, Some(2));
    assert!(log.contains("error: there is nothing to open streams through"), "{log}");
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let tunnel = Tunnel::start().await;
    let mut args = Server::args(&tunnel.pki);
    args.extend([
        format!("--carrier=quic://{}", tunnel.server.carrier).into(),
        "--admin=off".into(),
    ]);
    let mut second = Process::server(args);
    assert_eq!(second.ended().await.code(), Some(1));
    let line = second.log.line("error: ").await;
    assert!(
        line.contains(&format!("cannot listen on quic://{} (UDP)", tunnel.server.carrier)),
        "{line}"
    );
}

#[tokio::test]
async fn the_file_yields_to_the_environment_and_both_to_flags() {
    let files = Files::new();
    let config = files.pki.write(
        "server.toml",
        &files.fill(
            "carrier = ['quic://127.0.0.1:0']\nfrontend = ['connect://127.0.0.1:0']\nadmin = '127.0.0.1:0'\n\
             tls-cert = 'CERT'\ntls-key = 'KEY'\nagent-ca = 'CA'\nid = 'from-file'\nlog-format = 'json'\n",
        ),
    );
    let start = |environment: &[(&str, &str)], flags: &[&str]| {
        let mut command = Command::new(SERVER);
        command
            .arg("--config")
            .arg(&config)
            .args(flags)
            .envs(environment.iter().copied());
        Process::start("tunnel-server", command)
    };
    for (environment, flags, id) in [
        (&[][..], &[][..], "from-file"),
        (&[("TUNNEL_ID", "from-environment")], &[], "from-environment"),
        (&[("TUNNEL_ID", "from-environment")], &["--id=from-flag"], "from-flag"),
    ] {
        let server = start(environment, flags);
        let line = server.log.line("starts").await;
        assert!(
            line.starts_with('{') && line.contains(&format!("server {id} starts")),
            "{line}"
        );
    }
}

#[tokio::test]
async fn the_environment_alone_is_enough() {
    let files = Files::new();
    let variables: Vec<(&str, String)> = [
        ("TUNNEL_CARRIER", "quic://127.0.0.1:0"),
        (
            "TUNNEL_FRONTEND",
            "connect://127.0.0.1:0,connect+unix://DIR/connect.sock",
        ),
        ("TUNNEL_ADMIN", "off"),
        ("TUNNEL_TLS_CERT", "CERT"),
        ("TUNNEL_TLS_KEY", "KEY"),
        ("TUNNEL_AGENT_CA", "CA"),
    ]
    .map(|(name, value)| (name, files.fill(value)))
    .into();
    let mut command = Command::new(SERVER);
    command.envs(variables);
    let server = Process::start("tunnel-server", command);
    for part in [
        "listening for agents",
        "endpoint=connect://",
        "endpoint=connect+unix://",
    ] {
        server.log.line(part).await;
    }
}

#[tokio::test]
async fn the_admin_address_tells_what_is_connected_and_counts_it() {
    let tunnel = Tunnel::with(&[], &["--label=zone=a"]).await;
    tunnel.server.fetch(target::http("a page\n").await).await;
    let (status, sessions) = get(tunnel.server.admin, "/sessions").await;
    assert_eq!(status, 200);
    for part in [
        "\"server\": \"gw-1\"",
        "\"agent\": \"node-7\"",
        "\"zone\": \"a\"",
        "\"carrier\": \"quic\"",
    ] {
        assert!(sessions.contains(part), "{part} is not in {sessions}");
    }
    let (status, metrics) = get(tunnel.server.admin, "/metrics").await;
    assert_eq!(status, 200);
    assert!(
        metrics
            .lines()
            .any(|line| line.starts_with("tunnel_") && line.ends_with(" 1")),
        "{metrics}"
    );
}
