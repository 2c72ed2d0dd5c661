//! Redis as it is deployed: by TLS, and as a cluster; each test starts its own servers.

use super::plan::{Endpoint, Plan};
use super::testing::{Server, admitted, machine, place, plan, port, someone, unconnected, until};
use super::verdict::Source;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// An authority and a certificate of its making for 127.0.0.1, in `dir`.
fn certify(dir: &Path) {
    let steps = [
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem",
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=redis -keyout key.pem -out request.pem",
        "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out cert.pem",
    ];
    std::fs::write(dir.join("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n")
        .unwrap();
    for step in steps {
        let output = Command::new("openssl").args(step.split(' ')).current_dir(dir).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test]
async fn by_tls_an_authority_is_asked_and_a_strange_one_is_not_believed() {
    let (port, dir) = (port(), place());
    certify(&dir);
    let file = |name: &str| dir.join(name).display().to_string();
    let (cert, key, ca) = (file("cert.pem"), file("key.pem"), file("ca.pem"));
    let files = ["--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
    let switches = ["--tls-port", &port, "--bind", "127.0.0.1", "--tls-auth-clients", "no", "--requirepass", "x"];
    let server = Server::start_with(&[&files[..], &switches].concat());
    let url = format!("rediss://:x@127.0.0.1:{port}/2");
    let target = |ca: &str| url.parse::<super::Target>().unwrap().trusting(Some(Path::new(ca))).unwrap();
    let own = Plan { redis: Some(target(&ca)), ..plan(&server, "3/minute") };
    let (limiter, _) = machine(&own).await;
    assert_eq!(admitted(&limiter, &someone(&limiter, 1), 5).await, 3);
    assert_eq!(limiter.check(&someone(&limiter, 2), Endpoint::Api).await.source, Source::Redis);

    let strange = place();
    certify(&strange);
    let wary = Plan { redis: Some(target(strange.join("ca.pem").to_str().unwrap())), ..own };
    let (limiter, shared) = unconnected(&wary);
    until("the breaker is open", || shared.breaker().is_open()).await;
    assert!(!limiter.is_up());
    assert_eq!(limiter.check(&someone(&limiter, 1), Endpoint::Api).await.source, Source::Standby);
    _ = std::fs::remove_dir_all(dir).and(std::fs::remove_dir_all(strange));
}

/// Three masters with a third of the slots each, and the URL that names two of them.
async fn cluster() -> (Vec<Server>, String) {
    let ports = [port(), port(), port()];
    let node = |port: &String| {
        let bus = self::port();
        let on = ["--cluster-enabled", "yes", "--cluster-config-file", "nodes", "--cluster-node-timeout", "400"];
        let (servers, port) = (["--cluster-port", &bus, "--bind", "127.0.0.1", "--port", port], bus.clone());
        (Server::start_with(&[&on[..], &servers[..]].concat()), port)
    };
    let nodes: Vec<(Server, String)> = ports.iter().map(node).collect();
    for ((server, _), slots) in nodes.iter().zip([("0", "5460"), ("5461", "10922"), ("10923", "16383")]) {
        server.ask(&["CLUSTER", "ADDSLOTSRANGE", slots.0, slots.1]).await.unwrap();
        for (port, (_, bus)) in ports.iter().zip(&nodes) {
            server.ask(&["CLUSTER", "MEET", "127.0.0.1", port, bus]).await.unwrap();
        }
    }
    let servers: Vec<Server> = nodes.into_iter().map(|(server, _)| server).collect();
    whole(&servers).await;
    (servers, format!("redis+cluster://127.0.0.1:{},127.0.0.1:{}", ports[0], ports[1]))
}

async fn whole(servers: &[Server]) {
    let began = Instant::now();
    let mut turns = tokio::time::interval(Duration::from_millis(20));
    for server in servers {
        while !server.ask(&["CLUSTER", "INFO"]).await.unwrap().contains("cluster_state:ok") {
            assert!(began.elapsed() < Duration::from_secs(20), "no cluster");
            turns.tick().await;
        }
    }
}

#[tokio::test]
async fn a_cluster_counts_each_client_on_one_of_its_nodes_and_its_loss_is_stood_in_for() {
    let (mut servers, url) = cluster().await;
    let plan = Plan { redis: Some(url.parse().unwrap()), ..plan(&servers[0], "4/minute;90/day") };
    let (one, shared) = machine(&plan).await;
    let (other, _) = machine(&plan).await;
    for number in 0..30 {
        assert_eq!(admitted(&one, &someone(&one, number), 2).await, 2);
        assert_eq!(admitted(&other, &someone(&other, number), 3).await, 2, "client {number}");
    }
    for number in 60..90 {
        assert_eq!(admitted(&one, &someone(&one, number), 3).await, 3);
    }
    for server in &servers {
        // Two machines, 30 clients, four admitted and one refused call each; scripts are loaded with the first.
        assert!(server.calls().await > 20, "clients are spread over the nodes");
    }

    servers[2].kill();
    for number in 30..60 {
        let (before, began) = (Instant::now(), shared.breaker().is_open());
        assert_eq!(admitted(&one, &someone(&one, number), 1).await, 1);
        assert!(before.elapsed() < Duration::from_millis(100), "{:?}, open {began}", before.elapsed());
    }
    servers[2].restart();
    whole(&servers).await;
    until("back", || !shared.breaker().is_open() && one.is_up()).await;
    // What the empty master had counted is put back; that of the others stands.
    for number in 60..90 {
        assert_eq!(admitted(&one, &someone(&one, number), 4).await, 1, "client {number}");
    }
    for number in 30..60 {
        let verdict = one.check(&someone(&one, number), Endpoint::Api).await;
        assert_eq!((verdict.source, verdict.lines().next().unwrap().count), (Source::Redis, 2), "client {number}");
    }
}
