//! What keeps a broker from starting: each a typed error that says what to do, with nothing half done.

use broker::config::{Config, RawConfig};
use broker::fatal::Halt;
use broker::node::{Broker, StartError};
use log::data_dir::{DataDir, DataDirError, Identity, Role};
use log::storage::Storage;
use log::storage::file::FileStorage;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

fn config(dir: &Path, extra: &[(&str, &str)]) -> Config {
    let dir = dir.to_string_lossy();
    let base = [
        ("node.id", "1"),
        ("node.locality", "eu/a/r1"),
        ("data.dir", &*dir),
        ("client.listen", "127.0.0.1:0"),
        ("internal.listen", "127.0.0.1:0"),
        ("metrics.listen", "127.0.0.1:0"),
        ("controllers", "127.0.0.1:1"),
        ("shards", "2"),
    ];
    let flat: BTreeMap<String, String> =
        base.iter().chain(extra).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    RawConfig::from_flat(flat).and_then(Config::try_from).expect("a legal configuration")
}

fn storage(dir: &Path) -> Arc<dyn Storage> {
    Arc::new(FileStorage::new(dir.to_path_buf()))
}

fn format(dir: &Path, node_id: u32, role: Role) {
    let identity = Identity { cluster_id: Uuid::new_v4(), node_id, role, directory: Uuid::new_v4() };
    DataDir::format(&storage(dir), dir, &identity).expect("formats");
}

async fn start(config: Config) -> Result<broker::node::RunningBroker, StartError> {
    let storage = storage(&config.data_dir);
    let halt = Halt::with(|fatal| panic!("nothing here is fatal: {fatal}"));
    Broker::start_with(config, storage, Arc::new(String::new), halt).await
}

fn refusal(outcome: Result<broker::node::RunningBroker, StartError>) -> StartError {
    match outcome {
        Ok(_) => panic!("it must not start"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn an_unformatted_directory_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let error = refusal(start(config(dir.path(), &[])).await);
    assert!(matches!(error, StartError::DataDir(DataDirError::Unformatted { .. })), "{error}");
    assert!(error.to_string().contains("seawall format"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).expect("lists").count(), 0, "nothing was made in it");
}

#[tokio::test]
async fn the_directory_of_another_node_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    format(dir.path(), 2, Role::Broker);
    let error = refusal(start(config(dir.path(), &[])).await);
    assert!(matches!(error, StartError::DataDir(DataDirError::WrongNode { found: 2, expected: 1, .. })), "{error}");
    let dir = tempfile::tempdir().expect("a directory");
    format(dir.path(), 1, Role::Controller);
    let error = refusal(start(config(dir.path(), &[])).await);
    assert!(matches!(error, StartError::DataDir(DataDirError::WrongNode { .. })), "{error}");
}

#[tokio::test]
async fn a_taken_port_is_refused_by_key_and_address() {
    let dir = tempfile::tempdir().expect("a directory");
    format(dir.path(), 1, Role::Broker);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    for key in ["client.listen", "internal.listen", "metrics.listen"] {
        let error = refusal(start(config(dir.path(), &[(key, &address)])).await);
        assert!(matches!(&error, StartError::Listen { key: named, .. } if *named == key), "{error}");
        assert!(error.to_string().contains(&address), "{error}");
    }
}

#[tokio::test]
async fn a_directory_in_use_is_refused_and_free_again_after_a_stop() {
    let dir = tempfile::tempdir().expect("a directory");
    format(dir.path(), 1, Role::Broker);
    let first = start(config(dir.path(), &[])).await.expect("the first one starts");
    let error = refusal(start(config(dir.path(), &[])).await);
    assert!(matches!(error, StartError::DataDir(DataDirError::Locked { .. })), "{error}");
    let marked = first.stop().await;
    assert!(!marked, "it was never registered, so there is no incarnation to mark as cleanly stopped");
    tokio::time::timeout(Duration::from_secs(20), async {
        while let Err(error) = start(config(dir.path(), &[])).await.map(|_| ()) {
            assert!(matches!(error, StartError::DataDir(DataDirError::Locked { .. })), "{error}");
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the lock goes with the process's last part");
}

#[tokio::test]
async fn it_serves_health_and_says_why_it_is_not_ready() {
    let dir = tempfile::tempdir().expect("a directory");
    format(dir.path(), 1, Role::Broker);
    let broker = start(config(dir.path(), &[])).await.expect("it starts without a controller");
    let address = broker.addresses().metrics;
    assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
    let ready = get(address, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("broker is"), "{ready}");
    assert!(get(address, "/metrics").await.starts_with("HTTP/1.1 200"));
    broker.stop().await;
}

async fn get(address: std::net::SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("connects");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("reads");
    answer
}
