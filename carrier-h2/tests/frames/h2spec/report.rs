//! What h2spec says.

use std::{collections::BTreeSet, fmt, fs, net::SocketAddr};

use tunnel_testkit::programs;

/// What is tested.
pub(super) struct End {
    pub(super) what: &'static str,
    pub(super) addr: SocketAddr,
    pub(super) tls: bool,
}

/// A section and what is done there, such as `http2/6.7` and `Sends a PING frame`.
pub(super) type Case = (String, String);

/// What came of the cases.
#[derive(Default)]
pub(super) struct Report {
    pub(super) passed: BTreeSet<Case>,
    /// With what was expected, and what happened.
    failed: Vec<(Case, String)>,
    /// Those that failed for no fault of the end.
    misjudged: BTreeSet<Case>,
    skipped: usize,
}

/// How it is told that something was taken for what it is not: a PING of the end's own for an answer, and an answer in
/// HTTP/1.1 to what did not begin as HTTP/2 for a frame.
const MISJUDGED: [&str; 2] = ["PING Frame ((length:8, flags:0x00", "looked like an HTTP/1.1 header"];

impl Report {
    /// Reads a report in JUnit's form. The words of errors in it are not escaped, so it may not be XML.
    fn read(text: &str) -> Self {
        let mut report = Self::default();
        for element in text.split("<testcase ").skip(1) {
            let (element, _) = element.split_once("</testcase>").expect("its end");
            let case = (attribute(element, "package"), attribute(element, "classname"));
            if element.contains("<skipped>") {
                report.skipped += 1;
            } else if let Some((_, error)) = element.split_once("<failure>").or(element.split_once("<error>")) {
                let (error, _) = error.split_once("</").expect("its end");
                if MISJUDGED.iter().any(|words| error.contains(words)) {
                    report.misjudged.insert(case.clone());
                }
                report.failed.push((case, error.trim().to_owned()));
            } else {
                report.passed.insert(case);
            }
        }
        report
    }

    /// Whether nothing speaks against the end in a case.
    pub(super) fn clears(&self, case: &Case) -> bool {
        self.passed.contains(case) || self.misjudged.contains(case)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (passed, failed) = (self.passed.len(), self.failed.len());
        let misjudged = self.misjudged.len();
        write!(
            f,
            "{passed} passed, {failed} failed ({misjudged} misjudged), {} skipped",
            self.skipped
        )?;
        for ((section, what), error) in self.failed.iter().filter(|(case, _)| !self.misjudged.contains(case)) {
            write!(f, "\n  {section}: {what}: {}", error.replace('\n', " | "))?;
        }
        Ok(())
    }
}

fn attribute(element: &str, name: &str) -> String {
    let (_, rest) = element.split_once(&format!("{name}=\"")).unwrap();
    rest.split_once('"').unwrap().0.to_owned()
}

/// How long a large field is: some together do not fit into a frame of our ends, one alone fits into any.
const FIELD: &str = "15000";

/// Runs all cases, or the sections of some with more patience, if h2spec is installed.
pub(super) async fn judge(end: &End, cases: &[Case]) -> Option<Report> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report.xml");
    let sections: BTreeSet<_> = cases.iter().map(|(section, _)| section.as_str()).collect();
    let patience = if cases.is_empty() { "1" } else { "3" };
    let port = end.addr.port().to_string();
    let mut args = vec!["--port", &port, "--timeout", patience, "--strict"];
    args.extend(["--max-header-length", FIELD, "--junit-report", file.to_str().unwrap()]);
    if end.tls {
        args.extend(["--tls", "--insecure"]);
    }
    args.extend(sections);
    let output = programs::run("h2spec", &args).await?;
    let Ok(report) = fs::read(&file) else {
        panic!("no report: {}", String::from_utf8_lossy(&output.stdout));
    };
    Some(Report::read(&String::from_utf8_lossy(&report)))
}
