//! Servers that want to know who we are: passwords, users, certificates.

use std::path::Path;

use ::redis::TlsCertificates;
use sidestream::log::redis::{Ack, ClientCertificate, Password, RedisLog, RedisOptions, RefusedStore};
use sidestream::log::*;

use crate::actors::*;
use crate::connecting::{refusal, works};
use crate::redis_cluster::RedisClusterOptions;
use crate::redis_sentinel::RedisSentinelOptions;
use crate::redis_server::{RedisServer, RedisServerOptions};

/// What `docs/store-layout.md` says is enough.
const USER: &str = "user side on >secret ~ss:* resetchannels &ss:* +@all -@dangerous +info";

fn is_down_for(words: &str) -> impl FnMut(&StoreHealth) -> bool {
    move |health| matches!(health, StoreHealth::Down { reason } if reason.contains(words))
}

async fn admin(server: &RedisServer, command: &[&str]) {
    let command = ::redis::cmd(command[0]).arg(&command[1..]).to_owned();
    command.exec_async(&mut server.client().await).await.unwrap();
}

#[tokio::test]
async fn a_password_changes_without_a_restart() {
    let server = RedisServerOptions::default().directive(USER).start();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "secret\n").unwrap();
    let password = Some(Password::File(file.path().into()));
    let log = RedisLog::connect(RedisOptions { password, ..RedisOptions::new(server.url_as("side")) }).await.unwrap();
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;

    // Whoever is connected stays so, whatever comes first, the file or the server.
    admin(&server, &["ACL", "SETUSER", "side", "resetpass", ">changed"]).await;
    owner.says(&*log, &["still connected"]).await;
    admin(&server, &["CLIENT", "KILL", "USER", "side"]).await;
    until_health(&log, is_down_for("refused the credentials of side")).await;
    std::fs::write(file.path(), "changed\n").unwrap();
    until_health(&log, |health| *health == StoreHealth::Up).await;
    owner.insists(&*log, &["connected again"]).await;
    works(&log).await;

    std::fs::remove_file(file.path()).unwrap();
    admin(&server, &["CLIENT", "KILL", "USER", "side"]).await;
    let StoreHealth::Down { reason } = until_health(&log, is_down_for("store.password")).await else { panic!() };
    assert!(reason.contains(file.path().to_str().unwrap()) && !reason.contains("changed"), "{reason}");
}

#[tokio::test]
async fn a_password_file_that_is_missing_or_empty_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for path in [Path::new("/does/not/exist"), file.path()] {
        let password = Some(Password::File(path.into()));
        let refused = refusal(RedisOptions { password, ..RedisOptions::new("redis://u@127.0.0.1:1") }).await;
        assert!(matches!(refused, RefusedStore::File { option: "store.password", .. }), "{refused}");
        assert!(refused.to_string().contains(path.to_str().unwrap()), "{refused}");
    }
}

#[tokio::test]
async fn a_user_without_a_password_is_not_somebody_else() {
    let server = RedisServer::start();
    let refused = refusal(RedisOptions::new(server.url_as("side"))).await;
    assert!(refused.to_string().contains("store.password"), "{refused}");
}

fn client_certificate(of: &RedisServer) -> Option<ClientCertificate> {
    let dir = of.ca_file().parent().unwrap().to_owned();
    Some(ClientCertificate { cert_file: dir.join("server.pem"), key_file: dir.join("server.key") })
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_gets_the_one_that_the_operator_names() {
    let server = RedisServerOptions::default().tls().directive("tls-auth-clients yes").start();
    let stranger = RedisServerOptions::default().tls().start();
    let options = RedisOptions { ca_file: Some(server.ca_file()), ..RedisOptions::new(server.url()) };
    let with = |client_certificate| RedisOptions { client_certificate, ..options.clone() };

    works(&RedisLog::connect(with(client_certificate(&server))).await.unwrap()).await;

    let refused = refusal(with(None)).await;
    assert!(matches!(refused, RefusedStore::Tls { .. }), "{refused}");
    assert!(refused.to_string().contains("set store.cert_file and store.key_file"), "{refused}");

    let refused = refusal(with(client_certificate(&stranger))).await;
    assert!(matches!(refused, RefusedStore::Tls { .. }), "{refused}");
    assert!(refused.to_string().contains("certificate of store.cert_file"), "{refused}");

    let mut mixed = client_certificate(&server).unwrap();
    mixed.key_file = client_certificate(&stranger).unwrap().key_file;
    let refused = refusal(with(Some(mixed))).await;
    assert!(refused.to_string().contains("store.key_file"), "{refused}");

    let swapped = ClientCertificate { cert_file: server.ca_file(), key_file: server.ca_file() };
    let refused = refusal(with(Some(swapped))).await;
    assert!(matches!(refused, RefusedStore::File { option: "store.key_file", .. }), "{refused}");
}

#[tokio::test]
async fn a_certificate_for_another_host_is_refused_in_words_that_say_what_to_do() {
    let server = RedisServerOptions::default().tls().directive("bind 127.0.0.1 127.0.0.2").start();
    let url = server.url().replace("127.0.0.1", "127.0.0.2");
    let refused = refusal(RedisOptions { ca_file: Some(server.ca_file()), ..RedisOptions::new(url) }).await;
    assert!(refused.to_string().contains("write a host that the server's certificate names"), "{refused}");
}

#[tokio::test]
async fn a_cluster_and_sentinels_speak_tls_like_a_server() {
    let member = RedisServerOptions::default().tls().cluster().directive("tls-cluster yes").start();
    let tls = TlsCertificates { client_tls: None, root_cert: Some(std::fs::read(member.ca_file()).unwrap()) };
    let client = ::redis::Client::build_with_tls(member.url(), tls).unwrap();
    let all = ::redis::cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(0).arg(16383).to_owned();
    all.exec_async(&mut client.get_multiplexed_async_connection().await.unwrap()).await.unwrap();
    let url = format!("rediss-cluster://127.0.0.1:{}", member.port());
    let log =
        RedisLog::connect(RedisOptions { ca_file: Some(member.ca_file()), ..RedisOptions::new(url) }).await.unwrap();
    // A cluster that was just formed takes nothing for two seconds.
    let session = sidestream::session::SessionId::parse("any").unwrap();
    insist(async || log.bounds(&session).await).await;
    works(&log).await;

    let server = RedisServerOptions::default().tls().start();
    let dir = server.ca_file().parent().unwrap().display().to_string();
    // With a certificate of the same authority.
    let sentinel = RedisServerOptions::default()
        .tls()
        .sentinel()
        .directive(format!("tls-cert-file {dir}/server.pem"))
        .directive(format!("tls-key-file {dir}/server.key"))
        .directive(format!("sentinel monitor primary 127.0.0.1 {} 1", server.port()))
        .start();
    let url = format!("rediss-sentinel://127.0.0.1:{}?master=primary", sentinel.port());
    let log =
        RedisLog::connect(RedisOptions { ca_file: Some(server.ca_file()), ..RedisOptions::new(url) }).await.unwrap();
    works(&log).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_have_credentials_of_their_own() {
    let deployment = RedisSentinelOptions::default()
        .directive(USER)
        .sentinel_directive("user watcher on >watching +sentinel|master")
        .sentinel_directive("user nobody on >watching +ping")
        .start()
        .await;
    let login = |user: &str, password: &str| RedisOptions {
        sentinel_username: Some(user.into()),
        sentinel_password: Some(Password::Text(password.into())),
        ..RedisOptions::new(deployment.url_as("side:secret"))
    };
    works(&RedisLog::connect(login("watcher", "watching")).await.unwrap()).await;
    let refused = refusal(login("watcher", "wr0ng")).await;
    assert!(matches!(refused, RefusedStore::SentinelCredentials { .. }), "{refused}");
    assert!(refused.to_string().contains("store.sentinel_password") && !refused.to_string().contains("wr0ng"));
    let refused = refusal(login("nobody", "watching")).await;
    assert!(refused.to_string().contains("+sentinel|master"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_of_a_cluster_needs_no_more_permissions_and_no_less() {
    let cluster = RedisClusterOptions::default()
        .directive(USER)
        .directive("user deaf on >secret ~ss:* resetchannels +@all -@dangerous +info")
        .start()
        .await;
    for ack in [Ack::Memory, Ack::Replicated] {
        let options = RedisOptions { ack, ..RedisOptions::new(cluster.url_as("side:secret")) };
        let log = RedisLog::connect(options).await.unwrap();
        let mut owner = Owner::new(format!("works-{ack:?}").as_str(), "works");
        owner.open(&*log).await;
        owner.says(&*log, &["hello"]).await;
    }
    let refused = refusal(RedisOptions::new(cluster.url_as("deaf:secret"))).await;
    assert!(refused.to_string().contains("ACL SETUSER deaf ~ss:* resetchannels &ss:*"), "{refused}");
    let refused = refusal(RedisOptions::new(cluster.url_as("side:wrong"))).await;
    assert!(matches!(refused, RefusedStore::Credentials { .. }), "{refused}");
}
