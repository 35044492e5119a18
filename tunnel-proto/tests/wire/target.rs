//! What is a target, and what only looks like one.

use proptest::prelude::*;
use tunnel_proto::{DnsName, Host, HostPort, InvalidTarget, Target, UnixPath};

use crate::{checks, strategies};

fn parsed(text: &str) -> Result<Target, InvalidTarget> {
    text.parse()
}

#[test]
fn targets_are_printed_as_they_were_written() {
    let label = "x".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}", &label[..62]);
    assert_eq!(longest.len(), 254);
    for text in [
        "tcp://10.0.0.1:443",
        "udp://[2001:db8::7]:53",
        "tcp://[::1]:65535",
        "tcp://kubelet.example:10250",
        "tcp://Kubelet.Example.:1",
        "tcp://_srv.x-1.example:80",
        "tcp://localhost:80",
        "tcp://1.2.3.4x:80",
        "tcp://0xg:80",
        "unix:///run/docker.sock",
        "unix:///run/mit leerem/Zeichen/é.sock",
        &format!("tcp://{longest}:80"),
        &format!("tcp://{longest}.:80"),
        &format!("unix:///{}", "s".repeat(106)),
    ] {
        assert_eq!(parsed(text).map(|target| target.to_string()).as_deref(), Ok(text));
    }
}

#[test]
fn addresses_are_printed_canonically() {
    for (written, printed) in [
        ("tcp://[2001:DB8:0:0::7]:80", "tcp://[2001:db8::7]:80"),
        ("tcp://[::ffff:169.254.169.254]:80", "tcp://169.254.169.254:80"),
        ("tcp://[::ffff:a9fe:a9fe]:80", "tcp://169.254.169.254:80"),
    ] {
        assert_eq!(parsed(written).unwrap().to_string(), printed);
    }
}

#[test]
fn what_a_resolver_may_read_as_an_address_is_not_a_name() {
    for host in [
        "127.1",
        "127.0.0.1.",
        "2130706433",
        "0x7f000001",
        "0X7F.1",
        "0x",
        "0177.0.0.1",
        "1.2.3.4.5",
        "256.1.1.1",
        "example.1",
        "example.0x1.",
        "01.2.3.4",
    ] {
        let error = parsed(&format!("tcp://{host}:80")).unwrap_err();
        assert_eq!(error, InvalidTarget::NumericName(host.to_owned()));
    }
}

#[test]
fn a_port_is_a_number_from_1_to_65535_and_nothing_else() {
    for port in [
        "",
        "0",
        "+80",
        "-80",
        "080",
        "65536",
        "99999999999999999999",
        "80 ",
        " 80",
        "٨٠",
        "http",
    ] {
        for host in ["a.example", "10.0.0.1", "[::1]"] {
            let error = parsed(&format!("tcp://{host}:{port}"));
            assert_eq!(error, Err(InvalidTarget::Port), "{host}:{port}");
        }
    }
    assert_eq!(parsed("tcp://a.example"), Err(InvalidTarget::Port));
    assert_eq!(HostPort::new("a.example".parse().unwrap(), 0), Err(InvalidTarget::Port));
}

#[test]
fn ipv6_stands_in_brackets_without_a_zone() {
    for host in [
        "::1",
        "[::1",
        "[::1]]",
        "[]",
        "[fe80::1%eth0]",
        "[fe80::1%1]",
        "[10.0.0.1]",
        "2001:db8::7",
        "[::1]x",
    ] {
        let error = parsed(&format!("tcp://{host}:80"));
        assert_eq!(error, Err(InvalidTarget::Ipv6(host.to_owned())));
    }
}

#[test]
fn hosts_that_are_neither_names_nor_addresses_are_refused() {
    for host in [
        "a b",
        "a..b",
        ".",
        ".a",
        "a..",
        "user@a",
        "a/b",
        "é.example",
        "a\0",
        "a%00",
        "a\r\nb",
    ] {
        let error = parsed(&format!("tcp://{host}:80"));
        assert_eq!(error, Err(InvalidTarget::Host(host.to_owned())));
    }
    let label = "x".repeat(64);
    assert_eq!(parsed(&format!("tcp://{label}:80")), Err(InvalidTarget::Host(label)));
    assert_eq!(parsed("tcp://:80"), Err(InvalidTarget::NoHost));
    let long = "a.".repeat(128);
    assert_eq!(
        parsed(&format!("tcp://{long}:80")),
        Err(InvalidTarget::HostTooLong(256))
    );
    assert!(long[..255].parse::<DnsName>().is_ok());
}

#[test]
fn schemes_are_exact() {
    for text in [
        "",
        "a.example:80",
        "TCP://a.example:80",
        "http://a.example:80",
        "tcp:a.example:80",
        "tcp:/a:80",
    ] {
        assert_eq!(parsed(text), Err(InvalidTarget::Scheme), "{text}");
    }
}

#[test]
fn socket_paths_are_absolute_and_in_normal_form() {
    for path in [
        "",
        "run/x",
        "/",
        "/run/",
        "/run//x",
        "//run/x",
        "/run/./x",
        "/run/../etc/x",
        "/..",
        "/run/x\0",
        "/run/x\ny",
    ] {
        assert_eq!(Target::unix(path), Err(InvalidTarget::Path(path.to_owned())));
    }
    assert!("/run/..x/...".parse::<UnixPath>().is_ok());
    assert!(Target::unix(&format!("/{}", "s".repeat(107))).is_err());
}

#[test]
fn an_error_quotes_no_more_than_is_needed() {
    let error = parsed(&format!("unix://{}", "x".repeat(10_000))).unwrap_err();
    assert!(error.to_string().len() < 200);
}

#[test]
fn a_socket_address_is_a_target_unless_it_means_nothing_elsewhere() {
    let target = |text: &str| Target::try_from(text.parse::<std::net::SocketAddr>().unwrap());
    assert_eq!(target("[::ffff:10.0.0.1]:80"), parsed("tcp://10.0.0.1:80"));
    assert_eq!(target("10.0.0.1:0"), Err(InvalidTarget::Port));
    assert!(matches!(target("[fe80::1%2]:80"), Err(InvalidTarget::Ipv6(_))));
}

proptest! {
    #[test]
    fn a_target_is_printed_so_that_it_reads_the_same(target in strategies::target()) {
        let printed = target.to_string();
        prop_assert!(printed.len() <= Target::MAX);
        prop_assert_eq!(parsed(&printed), Ok(target));
    }

    #[test]
    fn a_name_is_kept_as_it_was_written(name in strategies::name(), port in 1u16..) {
        let text = format!("tcp://{name}:{port}");
        let target = parsed(&text).unwrap();
        prop_assert_eq!(target.to_string(), text);
        let host = target.host_port().map(HostPort::host);
        prop_assert_eq!(host, Some(&Host::Name(name.parse().unwrap())));
    }

    #[test]
    fn arbitrary_text_is_a_target_or_refused(text in "(tcp://|udp://|unix:/|)[\\[\\]:.%0-9a-fx/@_-]{0,24}(:[0-9+-]{1,6})?") {
        checks::target(text.as_bytes());
    }
}
