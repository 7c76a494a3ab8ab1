//! A real Redis server as a child process: its own port, its own directory, gone when dropped.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long the server may take to start.
const START: Duration = Duration::from_secs(20);

/// How long a server that may be dead or frozen is waited for.
const ANSWER: Duration = Duration::from_millis(500);

/// A port that something else took is tried again this often, this long apart.
const PORT_ATTEMPTS: u32 = 50;
const PORT_PAUSE: Duration = Duration::from_millis(100);

/// How long several servers may take to agree on anything, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at them.
pub const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How a server is started.
#[derive(Clone, Debug, Default)]
pub struct RedisServerOptions {
    tls: bool,
    directives: Vec<String>,
    program: Option<PathBuf>,
    sentinel: bool,
    cluster: bool,
    clock_ahead: Duration,
}

impl RedisServerOptions {
    /// Speaks TLS, and only TLS, with a certificate of a CA of its own.
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// A line of the configuration file, such as `requirepass secret` or `user …`.
    pub fn directive(mut self, line: impl Into<String>) -> Self {
        self.directives.push(line.into());
        self
    }

    /// The oldest version that is supported, 6.2, instead of the one that is installed; where there is none for the
    /// machine, the installed one all the same.
    pub fn version_6_2(mut self) -> Self {
        if cfg!(not(target_arch = "x86_64")) {
            return self;
        }
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/redis-6.2/redis-server");
        assert!(
            program.exists(),
            "Redis 6.2 is not there: run scripts/test, which fetches it (or `redis_6_2` of scripts/need.sh)"
        );
        self.program = Some(program);
        self
    }

    /// A Sentinel instead of a server. What it watches comes as directives.
    pub fn sentinel(mut self) -> Self {
        self.sentinel = true;
        self
    }

    /// A node of a cluster, with a bus port of its own.
    pub fn cluster(mut self) -> Self {
        self.cluster = true;
        self
    }

    /// Its clock shows a later time than the machine's.
    pub fn clock_ahead(mut self, by: Duration) -> Self {
        self.clock_ahead = by;
        self
    }

    /// Starts the server and waits until it answers.
    pub fn start(self) -> RedisServer {
        let mut exit = String::new();
        // A port that was free may be taken meanwhile, by a connection of another test.
        for _ in 0..5 {
            match self.clone().on_port(free_port()) {
                Ok(server) => return server,
                Err(said) => exit = said,
            }
        }
        panic!("redis-server did not start: {exit}")
    }

    /// The same on a port that a test has chosen.
    pub fn start_on(self, port: u16) -> RedisServer {
        self.on_port(port).unwrap_or_else(|exit| panic!("redis-server did not start on port {port}: {exit}"))
    }

    fn on_port(self, port: u16) -> Result<RedisServer, String> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        if self.tls {
            write_certificates(dir.path());
        }
        let bus_port = self.cluster.then(free_port);
        let mut server = RedisServer { options: self, port, bus_port, dir, child: None };
        server.spawn()?;
        Ok(server)
    }
}

/// A running server; stopped when dropped.
#[derive(Debug)]
pub struct RedisServer {
    options: RedisServerOptions,
    port: u16,
    bus_port: Option<u16>,
    dir: tempfile::TempDir,
    child: Option<Child>,
}

impl RedisServer {
    /// A server with defaults.
    pub fn start() -> Self {
        RedisServerOptions::default().start()
    }

    /// Its URL, without credentials.
    pub fn url(&self) -> String {
        self.url_as("")
    }

    /// Its URL for `user:password`.
    pub fn url_as(&self, credentials: &str) -> String {
        let scheme = if self.options.tls { "rediss" } else { "redis" };
        let at = if credentials.is_empty() { "" } else { "@" };
        format!("{scheme}://{credentials}{at}127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port on which the nodes of a cluster talk to each other.
    pub fn bus_port(&self) -> u16 {
        self.bus_port.expect("a node of a cluster")
    }

    /// Whether it was started, and not killed since.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// The certificate of the authority that signed the server's.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Kills it, as a crash does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again on the same port, with what it had saved.
    pub fn restart(&mut self) {
        self.kill();
        let mut exit = String::new();
        for _ in 0..PORT_ATTEMPTS {
            match self.spawn() {
                Ok(()) => return,
                Err(said) => exit = said,
            }
            // Something else may have the port for the moment.
            #[expect(clippy::disallowed_methods, reason = "a test that starts a process waits for it")]
            std::thread::sleep(PORT_PAUSE);
        }
        panic!("redis-server did not start again: {exit}");
    }

    /// Freezes it: connections stay, nothing is answered.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    /// A connection for the test itself.
    pub async fn client(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.url()).expect("a URL");
        client.get_multiplexed_async_connection().await.expect("the test server answers")
    }

    /// The same, or nothing where it does not answer at once.
    pub async fn try_client(&self) -> Option<redis::aio::MultiplexedConnection> {
        let client = redis::Client::open(self.url()).expect("a URL");
        let limits =
            redis::AsyncConnectionConfig::new().set_connection_timeout(Some(ANSWER)).set_response_timeout(Some(ANSWER));
        client.get_multiplexed_async_connection_with_config(&limits).await.ok()
    }

    /// From now on its replicas get nothing more: one that is promoted lacks what comes now.
    pub async fn withhold_from_replicas(&self) {
        let mut client = self.client().await;
        let rule = ["SETUSER", "default", "-psync", "-sync"];
        let _: () = redis::cmd("ACL").arg(&rule).query_async(&mut client).await.expect("the rule is accepted");
        let kill = ["KILL", "TYPE", "replica"];
        let _: usize = redis::cmd("CLIENT").arg(&kill).query_async(&mut client).await.expect("replicas are cut off");
    }

    /// Ends [`Self::withhold_from_replicas`]: they copy what they lack.
    pub async fn serve_replicas(&self) {
        let rule = ["SETUSER", "default", "+psync", "+sync"];
        let _: () = redis::cmd("ACL").arg(&rule).query_async(&mut self.client().await).await.expect("accepted");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().expect("the server runs").id().to_string();
        let done = Command::new("kill").args([signal, &pid]).status().expect("kill is there");
        assert!(done.success(), "kill {signal} {pid} failed");
    }

    fn spawn(&mut self) -> Result<(), String> {
        let config = self.dir.path().join("redis.conf");
        // A server that is started again finds its configuration as it, or a Sentinel, has rewritten it.
        if !config.exists() {
            std::fs::write(&config, self.config()).expect("the configuration can be written");
        }
        let program = self.options.program.clone().unwrap_or_else(|| "redis-server".into());
        let mut command = Command::new(program);
        command.arg(&config).stdout(Stdio::piped()).stderr(Stdio::null());
        if self.options.sentinel {
            command.arg("--sentinel");
        }
        if !self.options.clock_ahead.is_zero() {
            let library = clock_ahead_library(self.dir.path());
            let ahead = self.options.clock_ahead.as_millis().to_string();
            command.env("LD_PRELOAD", library).env("CLOCK_AHEAD_MS", ahead);
        }
        let mut child = command.spawn().unwrap_or_else(|error| {
            panic!("cannot run redis-server ({error}): install it (Debian and Ubuntu: apt-get install redis-server)")
        });
        let output = child.stdout.take().expect("stdout is piped");
        self.child = Some(child);
        let (ready, started) = std::sync::mpsc::sync_channel(2);
        std::thread::spawn(move || {
            let mut said = String::new();
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if line.contains("eady to accept connections") || line.contains("+monitor master") {
                    let _ = ready.send(Ok(()));
                }
                // Reads on, so that the server never blocks on its output.
                if said.len() < 4096 {
                    said.push_str(&line);
                    said.push('\n');
                }
            }
            let _ = ready.send(Err(said));
        });
        let begun = Instant::now();
        match started.recv_timeout(START) {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("nothing after {} s", begun.elapsed().as_secs())),
        }
    }

    fn config(&self) -> String {
        let dir = self.dir.path().display();
        let port = self.port;
        let listen = if self.options.tls {
            format!(
                "port 0\ntls-port {port}\ntls-auth-clients no\ntls-cert-file {dir}/server.pem\n\
                 tls-key-file {dir}/server.key\ntls-ca-cert-file {dir}/ca.pem\n"
            )
        } else {
            format!("port {port}\n")
        };
        let directives = self.options.directives.join("\n");
        if self.options.sentinel {
            return format!("bind 127.0.0.1\n{listen}dir {dir}\nlogfile \"\"\n{directives}\n");
        }
        let cluster = match self.bus_port {
            Some(bus) => format!("cluster-enabled yes\ncluster-port {bus}\ncluster-announce-ip 127.0.0.1\n"),
            None => String::new(),
        };
        format!("bind 127.0.0.1\n{listen}{cluster}dir {dir}\nsave \"\"\nappendonly no\nlogfile \"\"\n{directives}\n")
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits until servers agree on `what`.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited {} s for {what}", PATIENCE.as_secs());
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Asks a server that may be dead or frozen, or refuse.
pub async fn try_ask<T: redis::FromRedisValue>(server: &RedisServer, words: &[&str]) -> Option<T> {
    redis::cmd(words[0]).arg(&words[1..]).query_async(&mut server.try_client().await?).await.ok()
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// The library that shows a process another time, compiled into `dir`.
fn clock_ahead_library(dir: &Path) -> PathBuf {
    let (source, library) = (dir.join("clock_ahead.c"), dir.join("clock_ahead.so"));
    if !library.exists() {
        std::fs::write(&source, include_str!("clock_ahead.c")).expect("the file can be written");
        let arguments = ["-shared", "-fPIC", "-O1", "-o"];
        let compiled = Command::new("cc").args(arguments).arg(&library).arg(&source).status();
        assert!(compiled.expect("cc is there: Rust needs it to link").success(), "clock_ahead.c does not compile");
    }
    library
}

fn write_certificates(dir: &Path) {
    let mut authority = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    authority.distinguished_name.push(rcgen::DnType::CommonName, "test authority");
    let authority_key = rcgen::KeyPair::generate().expect("a key");
    let authority_pem = authority.self_signed(&authority_key).expect("a certificate").pem();
    let issuer = rcgen::Issuer::new(authority, authority_key);

    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = rcgen::CertificateParams::new(names).expect("parameters").signed_by(&key, &issuer);
    let write = |name: &str, text: String| std::fs::write(dir.join(name), text).expect("the file can be written");
    write("ca.pem", authority_pem);
    write("server.pem", certificate.expect("a certificate").pem());
    write("server.key", key.serialize_pem());
}
