//! The servers themselves, really started.

use std::path::Path;

use devstack::{Kafka, KafkaConfig, Postgres, PostgresConfig, free_ports};

#[test]
fn both_servers_start_again_after_a_kill_and_after_a_stop() {
    let dir = tempfile::tempdir().unwrap();
    let [port, controller_port, postgres_port] = free_ports().unwrap();
    let kafka = KafkaConfig::alone(dir.path().join("kafka"), port, controller_port);
    let postgres = PostgresConfig { dir: dir.path().join("postgres"), port: postgres_port, fsync: false };

    let first = (Kafka::start(&kafka).unwrap(), Postgres::start(&postgres).unwrap());
    assert!(Kafka::start(&kafka).unwrap_err().to_string().contains("already runs"));
    assert!(Postgres::start(&postgres).unwrap_err().to_string().contains("already runs"));
    let pids = (first.0.pid(), first.1.pid());
    first.0.kill().unwrap();
    first.1.kill().unwrap();

    let second = (Kafka::start(&kafka).unwrap(), Postgres::start(&postgres).unwrap());
    assert_ne!((second.0.pid(), second.1.pid()), pids);
    second.0.stop().unwrap();
    second.1.stop().unwrap();
    for name in ["kafka.pid", "postgres.pid"] {
        assert!(!Path::new(&dir.path().join(name)).exists());
    }

    // Dropped, both are killed: a failing test leaves nothing behind.
    drop((Kafka::start(&kafka).unwrap(), Postgres::start(&postgres).unwrap()));
}

#[test]
fn a_broker_may_come_back_on_other_ports() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b, c, d] = free_ports().unwrap();
    let at = |port, controller_port| KafkaConfig::alone(dir.path().join("kafka"), port, controller_port);
    Kafka::start(&at(a, b)).unwrap().stop().unwrap();
    Kafka::start(&at(c, d)).unwrap().stop().unwrap();
}
