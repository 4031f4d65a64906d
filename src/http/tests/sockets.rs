//! Listeners: the socket file, who is at the other end, and how serving ends.

use super::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use tokio::net::UnixStream;

fn serve_unix(socket: UnixSocket) -> (oneshot::Sender<()>, JoinHandle<()>) {
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async { drop(stopped.await) };
    let service = Echo::default().service();
    (stop, tokio::spawn(serve(Listener::Unix(socket), service, Limits::default(), shutdown)))
}

async fn ask_unix(path: &Path, request: String) -> Response {
    let mut client = Client::new(UnixStream::connect(path).await.unwrap());
    client.send(request).await;
    client.response().await
}

#[tokio::test]
async fn a_socket_file_has_its_mode_names_its_peer_and_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rpc.sock");
    let (stop, task) = serve_unix(UnixSocket::bind(&path, 0o640).unwrap());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    let me = std::fs::metadata(folder.path()).unwrap().uid();
    let peer = ask_unix(&path, get("/v1/peer")).await;
    let name = user::name(me).unwrap_or("a user without a name".into());
    assert_eq!(peer.text(), format!("{name} (uid {me}, pid {})", std::process::id()));
    drop(stop);
    patiently(task).await.unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_file_left_behind_is_replaced_and_a_listened_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rpc.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let (stop, task) = serve_unix(UnixSocket::bind(&path, 0o600).unwrap());
    assert_eq!(ask_unix(&path, post("hi")).await.text(), "hi");
    assert!(matches!(UnixSocket::bind(&path, 0o600), Err(BindError::InUse(_))));
    assert_eq!(ask_unix(&path, post("still")).await.text(), "still");
    drop(stop);
    patiently(task).await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn a_socket_file_that_is_taken_away_is_made_again_and_anothers_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run/rpc.sock");
    std::fs::create_dir(folder.path().join("run")).unwrap();
    let mut listener = Listener::Unix(UnixSocket::bind(&path, 0o640).unwrap());
    let is_ours = || {
        std::os::unix::net::UnixStream::connect(&path).is_ok()
            && std::fs::metadata(&path).unwrap().permissions().mode() & 0o777 == 0o640
    };
    listener.look();
    assert!(is_ours());
    // Removed, with its folder, and replaced by a socket that nobody listens on.
    std::fs::remove_file(&path).unwrap();
    listener.look();
    assert!(is_ours());
    std::fs::remove_dir_all(folder.path().join("run")).unwrap();
    listener.look();
    assert!(is_ours());
    std::fs::remove_file(&path).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    listener.look();
    assert!(is_ours());
    // Another's, and what is no socket.
    std::fs::remove_file(&path).unwrap();
    let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
    other.set_nonblocking(true).unwrap();
    listener.look();
    drop(std::os::unix::net::UnixStream::connect(&path).unwrap());
    assert!(other.accept().is_ok(), "the other still listens there");
    drop(other);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    listener.look();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    // Free again, and served.
    std::fs::remove_file(&path).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async { drop(stopped.await) };
    let task = tokio::spawn(serve(listener, Echo::default().service(), Limits::default(), shutdown));
    patiently(async {
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(ask_unix(&path, post("hi")).await.text(), "hi");
    drop(stop);
    patiently(task).await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn a_socket_file_of_systemd_is_never_made_by_us() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rpc.sock");
    let theirs = std::os::unix::net::UnixListener::bind(&path).unwrap();
    theirs.set_nonblocking(true).unwrap();
    let mut listener =
        Listener::Unix(UnixSocket::inherited(tokio::net::UnixListener::from_std(theirs).unwrap()));
    listener.look();
    std::fs::remove_file(&path).unwrap();
    listener.look();
    assert!(!path.exists());
}

#[tokio::test]
async fn what_is_no_socket_or_not_ours_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rpc.sock");
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(UnixSocket::bind(&path, 0o600), Err(BindError::NotASocket(_))));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    std::fs::remove_file(&path).unwrap();

    let socket = UnixSocket::bind(&path, 0o600).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "another's").unwrap();
    drop(socket);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "another's");

    let nowhere = folder.path().join("missing/rpc.sock");
    let error = UnixSocket::bind(&nowhere, 0o600).unwrap_err();
    assert!(
        matches!(error, BindError::System { .. }) && error.to_string().contains("missing/rpc.sock"),
        "{error}"
    );
}

#[tokio::test]
async fn a_peer_on_loopback_is_named_by_its_user_and_its_address() {
    let server = Server::plain().await;
    let mut client = server.connect().await;
    client.send(get("/v1/peer")).await;
    let here = client.stream.local_addr().unwrap().to_string();
    let uid = rustix::process::getuid().as_raw();
    let name = user::name(uid).unwrap_or("a user without a name".into());
    assert_eq!(client.response().await.text(), format!("{name} (uid {uid}) at {here}"));
    server.stop().await;
}

#[tokio::test]
async fn a_shutdown_ends_idle_connections_and_lets_requests_end() {
    let service = Echo::default();
    let (begun, go_on) = (service.begun.clone(), service.go_on.clone());
    let mut server = Server::start(service, Limits::default()).await;
    let (mut fresh, mut idle, mut busy) =
        (server.connect().await, server.connect().await, server.connect().await);
    idle.send(post("one")).await;
    assert_eq!(idle.response().await.text(), "one");
    busy.send(get("/v1/wait")).await;
    until(|| begun.load(Ordering::SeqCst) == 1).await;

    server.begin_stop();
    assert!(idle.is_closed().await && fresh.is_closed().await);
    assert!(TcpStream::connect(server.address).await.is_err());
    go_on.notify_one();
    let response = busy.response().await;
    assert_eq!(response.text(), "waited");
    assert!(response.header("connection").unwrap().eq_ignore_ascii_case("close"));
    patiently(server.task).await.unwrap();
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_ever() {
    let (send, mut senders) = mpsc::channel(1);
    let limits = Limits { drain_timeout: Duration::from_millis(100), ..Limits::default() };
    let server = Server::start(Echo { stream: Some(send), ..Echo::default() }, limits).await;
    let mut client = server.connect().await;
    client.send(get("/v1/stream")).await;
    let pieces = patiently(senders.recv()).await.unwrap();
    client.head().await;
    server.stop().await;
    assert!(client.is_closed().await);
    patiently(pieces.closed()).await;
}
