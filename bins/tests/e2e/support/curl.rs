//! The client that people use.

use std::process::Output;

use tokio::process::Command;

use super::soon;

/// curl, as far as it is installed.
pub(crate) struct Curl(());

impl Curl {
    /// Says so if it is missing: then the test shows nothing.
    pub(crate) async fn find() -> Option<Self> {
        let found = Command::new("curl").arg("--version").output().await.is_ok();
        if !found {
            eprintln!("skipped: curl is missing");
        }
        found.then_some(Self(()))
    }

    /// Runs it, without the environment's proxies.
    pub(crate) async fn run(&self, args: &[&str]) -> Output {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--max-time", "20", "--noproxy", ""])
            .args(args)
            .kill_on_drop(true);
        for name in ["http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY"] {
            curl.env_remove(name);
        }
        soon("curl's end", curl.output()).await.unwrap()
    }

    /// What it fetches, as it must not fail.
    pub(crate) async fn fetch(&self, args: &[&str]) -> String {
        let output = self.run(args).await;
        assert!(output.status.success(), "curl {args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}
