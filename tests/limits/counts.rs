//! What Redis is asked, and what the same limits are over TLS and in a cluster.

use super::storms::{connected, led};
use super::{ask, count, standing, storm, unit, used};
use crate::support::{Redis, Server, cluster, free_port, until};
use std::process::Command;

#[test]
fn redis_is_asked_once_for_each_admitted_request_and_never_for_a_flood() {
    let redis = Redis::start();
    let server =
        connected(&[("REDIS_URL", &redis.url()), ("RATE_LIMIT_DEFAULT", "10/minute;50/hour;200/day")], &[&redis]);
    // The first call brings the script along.
    assert_eq!(ask(&server, "198.51.100.1").status, 404);
    let calls = || redis.calls("evalsha") + redis.calls("eval");
    let (told, asked, storming, more) = led(&[&server], |time| {
        let (before, client) = (calls(), format!("198.51.{time}.2"));
        let told: Vec<u16> = (0..10).map(|_| ask(&server, &client).status).collect();
        let asked = calls();
        let storming = storm(&[&server.address], 400, &unit(&client));
        (told, asked - before, storming, calls() - asked)
    });
    assert_eq!((count(&told, 404), asked), (10, 10));
    assert_eq!((count(&storming, 429), more), (400, 0), "a flood does not reach Redis");
    assert_eq!(redis.calls("script|load"), 0);
}

#[test]
fn limits_hold_by_tls_in_a_cluster_and_with_a_login() {
    let place = std::env::temp_dir().join(format!("chatcorn-test-ca-{}", std::process::id()));
    std::fs::create_dir_all(&place).unwrap();
    let script = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.pem
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=redis -keyout key.pem -out request.pem
        printf 'subjectAltName=IP:127.0.0.1' > names
        openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out cert.pem";
    let made = Command::new("sh").args(["-ec", script]).current_dir(&place).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let file = |name: &str| place.join(name).display().to_string();
    let (cert, key, ca, port) = (file("cert.pem"), file("key.pem"), file("ca.pem"), free_port().to_string());
    let tls = ["--tls-port", &port, "--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
    let by_tls = Redis::start_with(
        &[&tls[..], &["--tls-auth-clients", "no", "--requirepass", "x", "--bind", "127.0.0.1"]].concat(),
    );
    let (cluster_of_three, cluster) = cluster();
    let secure = format!("rediss://:x@127.0.0.1:{port}");
    let masters: Vec<&Redis> = cluster_of_three.iter().collect();
    for (url, authorities, nodes) in [(&secure, ca.as_str(), vec![&by_tls]), (&cluster, "", masters)] {
        let limits =
            [("REDIS_URL", url.as_str()), ("REDIS_CA_FILE", authorities), ("RATE_LIMIT_DEFAULT", "3/minute;90/day")];
        let servers = [connected(&limits, &nodes), connected(&limits, &nodes)];
        for client in ["198.51.N.1", "198.51.N.2", "198.51.N.3", "2001:db8:N::1"] {
            let (told, used) = led(&[&servers[0], &servers[1]], |time| {
                let client = client.replace('N', &time.to_string());
                let told: Vec<u16> = (0..5).map(|n| ask(&servers[n % 2], &client).status).collect();
                (told, used(&standing(&servers[0], &client), "minute"))
            });
            assert_eq!((told, used), (vec![404, 404, 404, 429, 429], 3), "{url}");
        }
    }
    // Without its own authority it is nobody's to trust, and the machine counts alone.
    let alone = Server::start_with(&[("REDIS_URL", &secure), ("RATE_LIMIT_DEFAULT", "3/minute")], &[]);
    let told: Vec<u16> = (0..4).map(|_| ask(&alone, "198.51.100.1").status).collect();
    assert_eq!(told, [404, 404, 404, 429]);
    until("the breaker", || standing(&alone, "198.51.100.1")["store"] != "redis");
    std::fs::remove_dir_all(place).unwrap();
}
