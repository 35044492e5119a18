//! What the programs are told.

use std::{fs, net::SocketAddr, path::Path};

use super::Program;

/// Whom the forward proxies let in.
pub const USER: &str = "me";
/// With which password.
pub const PASSWORD: &str = "hunter2";

/// A forward proxy that wants to know who asks: [`USER`] with [`PASSWORD`].
///
/// # Panics
///
/// As [`Program::start`].
pub async fn tinyproxy() -> Option<Program> {
    let configure = |directory: &Path, port: u16| {
        let text = format!("Port {port}\nListen 127.0.0.1\nTimeout 60\nBasicAuth {USER} {PASSWORD}\n");
        let file = write(directory, "tinyproxy.conf", &text);
        vec!["-d".to_owned(), "-c".to_owned(), file]
    };
    Program::start("tinyproxy", configure).await
}

/// Another one, with the same user.
///
/// # Panics
///
/// As [`Program::start`].
pub async fn squid() -> Option<Program> {
    let configure = |directory: &Path, port: u16| {
        // Squid asks a helper.
        let helper = format!(
            r#"while read -r line; do
if [ "$line" = "{USER} {PASSWORD}" ]; then echo OK; else echo ERR; fi
done
"#
        );
        let helper = write(directory, "helper", &helper);
        let own = directory.display();
        let text = format!(
            "http_port 127.0.0.1:{port}
pid_filename {own}/pid
cache_log /dev/null
access_log none
cache deny all
coredump_dir {own}
shutdown_lifetime 0 seconds
auth_param basic program /bin/sh {helper}
auth_param basic children 1
acl known proxy_auth REQUIRED
http_access allow known
http_access deny all
"
        );
        let file = write(directory, "squid.conf", &text);
        vec!["-N".to_owned(), "-f".to_owned(), file]
    };
    Program::start("squid", configure).await
}

/// A web server before a tunnel server. `server` is what stands in its one `server { … }`, where `PORT` is replaced by
/// the port to listen on.
///
/// # Panics
///
/// As [`Program::start`].
pub async fn nginx(server: &str) -> Option<Program> {
    let configure = |directory: &Path, port: u16| {
        let server = server.replace("PORT", &port.to_string());
        let own = directory.display();
        // One process, which is one to kill.
        let text = format!(
            "daemon off;
master_process off;
pid {own}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {own}/body;
    proxy_temp_path {own}/proxy;
    fastcgi_temp_path {own}/fastcgi;
    uwsgi_temp_path {own}/uwsgi;
    scgi_temp_path {own}/scgi;
    server {{
{server}
    }}
}}
"
        );
        let file = write(directory, "nginx.conf", &text);
        vec![
            "-p".to_owned(),
            own.to_string(),
            "-e".to_owned(),
            "stderr".to_owned(),
            "-c".to_owned(),
            file,
        ]
    };
    Program::start("nginx", configure).await
}

/// A load balancer before a tunnel server. `sections` is its configuration, where `PORT` is replaced by the port to
/// listen on.
///
/// # Panics
///
/// As [`Program::start`].
pub async fn haproxy(sections: &str) -> Option<Program> {
    let configure = |directory: &Path, port: u16| {
        let file = write(directory, "haproxy.cfg", &sections.replace("PORT", &port.to_string()));
        // One process in the foreground.
        vec!["-db".to_owned(), "-f".to_owned(), file]
    };
    Program::start("haproxy", configure).await
}

/// A proxy before a tunnel server, or one that a tunnel goes to. `config` is its configuration (YAML), where `PORT` is
/// replaced by the port to listen on.
///
/// # Panics
///
/// As [`Program::start`].
pub async fn envoy(config: &str) -> Option<Program> {
    let configure = |directory: &Path, port: u16| {
        let file = write(directory, "envoy.yaml", &config.replace("PORT", &port.to_string()));
        let words = [
            "--disable-hot-restart",
            "--concurrency",
            "1",
            "--log-level",
            "warning",
            "-c",
        ];
        words.into_iter().map(str::to_owned).chain([file]).collect()
    };
    Program::start("envoy", configure).await
}

/// A proxy for clients of HTTP/1.1 that asks a proxy behind it by HTTP/2 in clear text.
///
/// # Panics
///
/// As [`Program::start`].
pub async fn nghttpx(backend: SocketAddr) -> Option<Program> {
    let configure = |_: &Path, port: u16| {
        let (ip, behind) = (backend.ip(), backend.port());
        vec![
            // Not the system's.
            "--conf=/dev/null".to_owned(),
            "--single-process".to_owned(),
            "--http2-proxy".to_owned(),
            format!("--frontend=127.0.0.1,{port};no-tls"),
            format!("--backend={ip},{behind};;proto=h2"),
        ]
    };
    Program::start("nghttpx", configure).await
}

/// Writes a file and gives its path.
fn write(directory: &Path, name: &str, text: &str) -> String {
    let file = directory.join(name);
    fs::write(&file, text).expect("a file");
    file.display().to_string()
}
