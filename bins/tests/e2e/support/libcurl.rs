//! A curl that speaks HTTP/2 with proxies, which that of the system may be too old for.

use std::process::Output;

use tokio::process::Command;

use super::soon;

/// Takes the options of curl, as far as they are used here.
const SCRIPT: &str = include_str!("fetch.py");
/// Fails unless libcurl is new enough, and built with HTTP/2.
const PROBE: &str = "\
import pycurl, sys
version = pycurl.version_info()
sys.exit(version[2] < 0x080100 or not version[4] & pycurl.VERSION_HTTP2)";

/// libcurl from 8.1 on, as far as pycurl is installed and brings it.
pub(crate) struct Libcurl(());

impl Libcurl {
    /// Says so if it is missing: then the test shows nothing.
    pub(crate) async fn find() -> Option<Self> {
        let probed = Command::new("python3").args(["-c", PROBE]).output().await;
        let found = probed.is_ok_and(|output| output.status.success());
        if !found {
            eprintln!("skipped: pycurl with libcurl 8.1 or later and HTTP/2 is missing");
        }
        found.then_some(Self(()))
    }

    /// What runs it with the words of a curl command line.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut words = line.split_whitespace().filter(|word| *word != "\\");
        assert_eq!(words.next(), Some("curl"));
        let mut command = Command::new("python3");
        command.args(["-c", SCRIPT]).args(words).kill_on_drop(true);
        command
    }

    /// Runs it to its end.
    pub(crate) async fn run(&self, line: &str) -> Output {
        soon("curl's end", self.command(line).output()).await.unwrap()
    }
}
