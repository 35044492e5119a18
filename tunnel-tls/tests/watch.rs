//! Files are replaced in every way that operators and programs do it.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step fails the test")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use support::*;
use tokio::sync::watch::Receiver;
use tokio::time::timeout;
use tunnel_tls::{ClientAuth, ReloadStatus, ServerTls, Trust};

/// Waits for a state; the time is only a bound for the case that it never comes.
async fn until(status: &mut Receiver<ReloadStatus>, reached: impl FnMut(&ReloadStatus) -> bool) -> ReloadStatus {
    let waiting = timeout(Duration::from_secs(30), status.wait_for(reached));
    waiting.await.expect("nothing was noticed").unwrap().clone()
}

/// What the server shows to a new client.
async fn certificate_of(tls: &ServerTls, ca: &Ca) -> rustls::pki_types::CertificateDer<'static> {
    let (_, stream) = connected(tls.tcp_config(&[]), client_tls(ca).tcp_config(&[])).await;
    shown(stream.get_ref().1.peer_certificates())
}

#[tokio::test]
async fn files_that_are_written_in_place_are_noticed_and_a_bad_one_changes_nothing() {
    let ca = Ca::new("ca");
    let (first, second) = (ca.server(), ca.server());
    let files = Files::new(&first, &ca.pem);
    let tls = files.server(|_| ClientAuth::None);
    let watch = tls.watch();
    let mut status = watch.status();

    files.put("tls.crt", "half a certificate");
    let seen = until(&mut status, |status| status.failures > 0).await;
    let error = seen.error.unwrap().to_string();
    assert!(error.contains("tls.crt"), "{error}");
    assert_eq!(certificate_of(&tls, &ca).await, der(&first));

    files.put_pair(&second);
    let seen = until(&mut status, |status| status.reloads > 0).await;
    assert!(seen.error.is_none());
    assert_eq!(certificate_of(&tls, &ca).await, der(&second));
}

#[tokio::test]
async fn files_that_are_renamed_over_are_noticed() {
    let ca = Ca::new("ca");
    let files = Files::new(&ca.server(), &ca.pem);
    let tls = files.server(|_| ClientAuth::None);
    let watch = tls.watch();
    let mut status = watch.status();
    for round in 1..=3 {
        let next = ca.server();
        for (name, text) in [("tls.crt", &next.chain), ("tls.key", &next.key)] {
            files.put("draft", text);
            fs::rename(files.path("draft"), files.path(name)).unwrap();
        }
        // Chain and key may be found changed in two steps, of which the first cannot be used.
        until(&mut status, |status| status.reloads == round).await;
        assert_eq!(certificate_of(&tls, &ca).await, der(&next));
    }
}

/// The layout of a mounted secret: `tls.crt -> ..data/tls.crt`, `..data -> ..2026_1`, and every update makes a
/// new directory and swaps the link `..data` in one step.
struct Mount {
    dir: tempfile::TempDir,
    versions: u32,
}

impl Mount {
    fn new(pair: &Pair, ca: &str) -> Self {
        let mut mount = Self {
            dir: tempfile::tempdir().unwrap(),
            versions: 0,
        };
        mount.update(pair, ca);
        for name in ["tls.crt", "tls.key", "ca.crt"] {
            symlink(format!("..data/{name}"), mount.dir.path().join(name)).unwrap();
        }
        mount
    }

    fn update(&mut self, pair: &Pair, ca: &str) {
        let root = self.dir.path();
        let old = fs::canonicalize(root.join("..data")).ok();
        self.versions += 1;
        let version = format!("..2026_{}", self.versions);
        fs::create_dir(root.join(&version)).unwrap();
        for (name, text) in [("tls.crt", &pair.chain[..]), ("tls.key", &pair.key), ("ca.crt", ca)] {
            fs::write(root.join(&version).join(name), text).unwrap();
        }
        symlink(&version, root.join("..data_tmp")).unwrap();
        fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
        if let Some(old) = old {
            fs::remove_dir_all(old).unwrap();
        }
    }
}

#[tokio::test]
async fn a_mounted_secret_that_is_swapped_by_its_link_is_noticed_every_time() {
    let (ca, clients) = (Ca::new("ca"), Ca::new("clients"));
    let mut mount = Mount::new(&ca.server(), &clients.pem);
    let path = |name: &str| mount.dir.path().join(name);
    let tls = ServerTls::builder(path("tls.crt"), path("tls.key"))
        .client_auth(ClientAuth::Optional(Trust::ca(path("ca.crt"))))
        .build()
        .unwrap();
    let watch = tls.watch();
    let mut status = watch.status();
    for round in 1..=3 {
        let next = ca.server();
        mount.update(&next, &clients.pem);
        // Everything changes in one step, so that nothing is ever found half changed.
        let seen = until(&mut status, |status| status.reloads == round).await;
        assert_eq!(seen.failures, 0);
        assert_eq!(certificate_of(&tls, &ca).await, der(&next));
    }
    let other = Ca::new("other");
    mount.update(&ca.server(), &other.pem);
    until(&mut status, |status| status.reloads == 4).await;
    let of_other = client_tls_with(&ca, &other.client("a")).tcp_config(&[]);
    connected(tls.tcp_config(&[]), of_other).await;
}

#[tokio::test]
async fn a_client_is_reloaded_by_its_watch_until_that_is_dropped() {
    let (old, new) = (Ca::new("old"), Ca::new("new"));
    let files = Files::new(&old.client("a"), &old.pem);
    let tls = files.client();
    let watch = tls.watch();
    let mut status = watch.status();
    files.put("ca.crt", &new.pem);
    until(&mut status, |status| status.reloads == 1).await;
    let server = server_tls(&new.server()).tcp_config(&[]);
    connected(server.clone(), tls.tcp_config(&[])).await;

    drop(watch);
    // The sender is gone when the task has ended.
    let ended = timeout(Duration::from_secs(30), status.wait_for(|_| false));
    assert!(ended.await.expect("the watch goes on").is_err());
}
