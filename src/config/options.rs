//! Every option, once: its path, form, default, flag and doc line. `--help`, `default-config`,
//! `docs/configuration.md`, the reader of the file and the reader of the environment all go through
//! these tables, so that none of them can know an option that the others do not.

use super::call_kinds::{Cancelling, CredentialPlace, Header, JsonText, Steering, ValueOfEvents};
use super::kinds::{
    BackendUrl, FilePath, Interception, KeyPrefix, LogFilter, Networks, Origin, PathPrefix, Principal, SecretPlace,
    StorePlace, User,
};
use super::route_kinds::{Base, BodyPointer, DialectName, KeepaliveEvery, Pattern, PresetName, Rule, When};
use super::route_settings::Route;
use super::settings::Config;
use super::value::{Bytes, Count, Delay, Given, Kind, ListOf, ListenAddress, OneOf, OrNone, Span, Unset, YesNo};

/// One option of `C`.
pub struct Opt<C: 'static> {
    /// Its full name: sections and key, joined by dots.
    pub path: &'static str,
    /// How its value is written, in a word.
    pub form: &'static str,
    /// What it decides.
    pub doc: &'static str,
    /// Its flag, without the dashes.
    pub flag: Option<&'static str>,
    /// A shorter name: accepted as `SIDESTREAM_NAME`, and in the file where it is not a section.
    pub short: Option<&'static str>,
    /// For an option without a default: a value, as it is written in the file.
    pub example: Option<&'static str>,
    read: fn(&mut C, &Given) -> Result<(), String>,
    show: fn(&C) -> String,
}

impl<C> Opt<C> {
    /// The section that it stands in; empty for the top of the file.
    pub fn section(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(section, _)| section)
    }

    /// Its name within its section.
    pub fn key(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, key)| key)
    }

    /// Its value in `config`, as it is written in the file, without secrets.
    pub fn show(&self, config: &C) -> String {
        (self.show)(config)
    }

    /// Puts what was given into `config`.
    pub(super) fn put(&self, config: &mut C, given: &Given) -> Result<(), String> {
        (self.read)(config, given)
    }

    /// Its environment variable: the short one where it has one.
    pub fn variable(&self) -> String {
        format!("SIDESTREAM_{}", self.short.unwrap_or(self.path).to_uppercase().replace('.', "__"))
    }
}

/// A part of the file.
pub struct Section {
    /// Its name; empty for the top of the file.
    pub name: &'static str,
    /// What it is about.
    pub doc: &'static str,
}

/// Every section, in the order in which they are written.
pub const SECTIONS: &[Section] = &[
    Section { name: "", doc: "Where Sidestream listens, and what it records." },
    Section { name: "upstream", doc: "The backend beside us." },
    Section {
        name: "store",
        doc: "Where sessions live, and for how long. What is stored: the events of every recorded answer.",
    },
    Section { name: "server", doc: "The manners of the data listener." },
    Section { name: "auth", doc: "Who may do what." },
    Section { name: "send", doc: "What clients may put into the requests that Sidestream makes for them." },
    Section { name: "limits", doc: "Bounds. Every one of them is per instance unless it says otherwise." },
    Section {
        name: "shutdown",
        doc: "How the process leaves after SIGTERM. Keep Kubernetes' terminationGracePeriodSeconds above the sum.",
    },
    Section { name: "log", doc: "What is logged, to standard error. Payloads and credentials never are." },
];

/// An option: `"path", field.of.config: Kind, "doc"`, then what else it has.
macro_rules! option {
    ($config:ty, $path:literal, $($field:ident).+, $kind:ty, $doc:literal $(, $extra:ident: $value:literal)*) => {
        Opt::<$config> {
            $($extra: Some($value),)*
            ..Opt {
                path: $path,
                form: <$kind as Kind>::FORM,
                doc: $doc,
                flag: None,
                short: None,
                example: None,
                read: |config, given| {
                    config.$($field).+ = <$kind as Kind>::read(given)?;
                    Ok(())
                },
                show: |config| <$kind as Kind>::show(&config.$($field).+),
            }
        }
    };
}

macro_rules! options {
    ($config:ty: $($path:literal, $($field:ident).+, $kind:ty, $doc:literal $(, $extra:ident: $value:literal)*;)*) => {
        &[$(option!($config, $path, $($field).+, $kind, $doc $(, $extra: $value)*)),*]
    };
}

/// Every option but those of a route, sorted by section.
pub static OPTIONS: &[Opt<Config>] = options! { Config:
    "listen", listen, ListenAddress,
        "The data listener: what your clients speak to instead of the upstream.", flag: "listen";
    "health_listen", health_listen, ListenAddress,
        "The health listener: /livez, /readyz, /metrics, /wait-for-drain. Read-only, may face the kubelet.", flag: "health-listen";
    "admin_listen", admin_listen, ListenAddress,
        "The admin listener: /drain, /sessions. Never make it public.", flag: "admin-listen";
    "allow_open", allow_open, YesNo,
        "Listen on an address that other machines reach although `auth.mode` is `none`: whoever reaches it may read every session.", flag: "allow-open";
    "intercept", intercept, Interception,
        "Which streams are recorded where no [[route]] says it: `auto` (every method but GET and HEAD), `off` (a plain proxy), or routes such as [\"POST /api/chat\"].";
    "preset", presets, ListOf<PresetName>,
        "Backends that are known: their routes stand behind every [[route]] of the file. `sidestream presets` lists them, `sidestream presets NAME` shows their routes.", flag: "preset";

    "upstream.url", upstream.url, BackendUrl,
        "The backend. Everything that is not ours is forwarded to it. Required.", flag: "upstream", short: "upstream", example: "\"http://127.0.0.1:8000\"";
    "upstream.host", upstream.host, OneOf<Option<crate::config::HostPolicy>>,
        "Which Host header the upstream sees: the client's (`preserve`) or its own (`upstream`). `auto`: preserve for http://, upstream for https://.";
    "upstream.connect_timeout", upstream.connect_timeout, Span,
        "How long connecting to the upstream may take, TLS included.";
    "upstream.first_byte_timeout", upstream.first_byte_timeout, OrNone<Span>,
        "How long the upstream may take until its response head. Models think for minutes, so there is no limit by default.";
    "upstream.idle_timeout", upstream.idle_timeout, OrNone<Span>,
        "How long an answer that is passed through may be silent.";
    "upstream.http2", upstream.http2, OneOf<crate::config::Http2>,
        "HTTP/2 to the upstream: `h2c` (without TLS, by prior knowledge), `alpn` (where TLS negotiates it) or `off`.";

    "store.url", store.url, Unset<StorePlace>,
        "Where sessions live: `redis://[USER:PASSWORD@]HOST[:PORT][/DB]`, `redis-sentinel://[USER:PASSWORD@]HOST[:PORT],…[/DB]?master=NAME`, `redis-cluster://[USER:PASSWORD@]HOST[:PORT],…`, each with TLS as `rediss…://`, `file:DIR` (embedded, one process) or `memory:` (gone with the process). Default: embedded, in $SIDESTREAM_DATA_DIR, else in ~/.local/state/sidestream/<upstream host:port>.", flag: "store", short: "store", example: "\"redis://127.0.0.1:6379\"";
    "store.password", store.password, Unset<SecretPlace>,
        "Redis: where the password of the URL's user is, if not in the URL. A file is read again for every connection, so that the password can be changed without a restart.", example: "\"file:/run/secrets/redis-password\"";
    "store.ca_file", store.ca_file, Unset<FilePath>,
        "`rediss…://`: a PEM file of the certificate authorities to trust, instead of the system's. Like the next two it is read again for every connection.", example: "\"/etc/sidestream/redis-ca.pem\"";
    "store.cert_file", store.cert_file, Unset<FilePath>,
        "`rediss…://`, for servers that ask for a certificate: the PEM file of ours, with those between it and its authority's.", example: "\"/etc/sidestream/redis-client.pem\"";
    "store.key_file", store.key_file, Unset<FilePath>,
        "The PEM file of that certificate's private key.", example: "\"/etc/sidestream/redis-client.key\"";
    "store.sentinel_username", store.sentinel_username, Unset<User>,
        "`redis-sentinel://`: the user at the sentinels, where they have users; the URL has that of the servers.", example: "\"sidestream\"";
    "store.sentinel_password", store.sentinel_password, Unset<SecretPlace>,
        "`redis-sentinel://`: where the password at the sentinels is, where they ask for one.", example: "\"file:/run/secrets/sentinel-password\"";
    "store.ack", store.ack, OneOf<crate::config::Ack>,
        "Redis: when an entry counts as stored, and is shown to anybody: when the primary has it (`memory`), or when a replica has it, too (`replicated`). The first may lose the newest entries in a failover, which readers are told; the second needs a replica and waits for it.";
    "store.key_prefix", store.key_prefix, KeyPrefix,
        "What every Redis key begins with.";
    "store.ttl", store.ttl, Span,
        "A session that nobody has written to for so long expires.";
    "store.max_entries", store.max_entries, Count<u64>,
        "At most so many entries per session; the oldest go first.";
    "store.max_bytes", store.max_bytes, Bytes<u64>,
        "At most so many bytes per session; the oldest entries go first.";
    "store.total_bytes", store.total_bytes, Bytes<u64>,
        "Embedded: bytes of all sessions together. The oldest ended sessions go first, active ones never.";
    "store.eager_after", store.eager_after, Delay,
        "How long a direct caller waits for a slow store before it is served without it.";
    "store.outage_limit", store.outage_limit, Delay,
        "How long a run waits for a store that is away before it gives up durability.";

    "server.prefix", server.prefix, PathPrefix,
        "Reserved path prefix of our own routes, for ingresses that route only a part of the paths: /api/_sidestream.";
    "server.trusted_proxies", server.trusted_proxies, ListOf<Networks>,
        "Networks whose X-Forwarded-Proto, -Host and -Prefix headers are kept.";
    "server.cors_origins", server.cors_origins, ListOf<Origin>,
        "Origins whose pages may use our own routes; `*` for any, without credentials. Empty: the same origin only.";
    "server.identity_body_limit", server.identity_body_limit, Bytes<u64>,
        "Largest request body that is read to find its session or input. A larger one is forwarded untouched and gets a session of its own.";
    "server.demo", server.demo, YesNo,
        "Serve the demo page at <server.prefix>/demo.", flag: "demo";

    "auth.mode", auth.mode, OneOf<crate::config::AuthMode>,
        "How callers are authenticated. This version has `none` alone: whoever reaches the data listener may read every session, so any other address than loopback needs --allow-open.", flag: "auth", short: "auth";
    "auth.principal", auth.principal, ListOf<Principal>,
        "What of a request says whose it is: `header:NAME` or `cookie:NAME`; the first that is there counts. Requests with the same value are one user, whose sessions a new device can list. Only a digest of it is kept. Empty: nobody has sessions of their own.";

    "send.headers", send.headers, ListOf<Header>,
        "Headers that a client may name in a `send`.";
    "send.credentials", send.credentials, ListOf<Header>,
        "Headers of the client's own request (its WebSocket handshake, its POST) that go with its `send`. They are never stored: see a route's `credential`.";

    "limits.event_bytes", limits.event_bytes, Bytes<u64>,
        "Largest event that is kept. A larger one still reaches the direct caller; the log gets an entry that says so.";
    "limits.pending_bytes", limits.pending_bytes, Bytes<u64>,
        "Bytes of unfinished and unstored events of all runs together; then runs whose events wait for the store are read more slowly.";
    "limits.run_duration", limits.run_duration, Span,
        "Longest run; then it is cancelled.";
    "limits.sockets", limits.sockets, Count<usize>,
        "WebSocket connections.";
    "limits.sessions_per_socket", limits.sessions_per_socket, Count<usize>,
        "Sessions attached on one WebSocket.";
    "limits.message_bytes", limits.message_bytes, Bytes<usize>,
        "Largest WebSocket message that a client may send.";
    "limits.caller_buffer", limits.caller_buffer, Bytes<u64>,
        "Bytes that a direct caller may be behind its run before it is cut off. The run goes on.";
    "limits.ring_bytes", limits.ring_bytes, Bytes<usize>,
        "Bytes of the newest entries that are kept in memory per followed session.";

    "limits.queue_depth", limits.queue_depth, Count<usize>,
        "Runs that may wait in the queue of a session.";
    "limits.queue_bytes", limits.queue_bytes, Bytes<u64>,
        "Bytes that the runs waiting in a session may have together.";

    "shutdown.accept_for", shutdown.accept_for, Delay,
        "How long new requests are still accepted, until load balancers have noticed.";
    "shutdown.spread", shutdown.spread, Delay,
        "Over how long WebSocket clients are told to go, so that they do not all come back at once.";
    "shutdown.run_deadline", shutdown.run_deadline, Delay,
        "How long active runs may go on; then they end as `interrupted`.";

    "log.format", log.format, OneOf<crate::config::LogFormat>,
        "The shape of a line. `auto`: pretty on a terminal, JSON otherwise.", flag: "log-format";
    "log.level", log.level, LogFilter,
        "`error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,sidestream::run=debug`.", flag: "log-level";
};

/// Every option of a `[[route]]`.
pub static ROUTE_OPTIONS: &[Opt<Route>] = options! { Route:
    "match", pattern, Pattern,
        "Which requests: `METHOD /path`. `*` stands for any method, `{name}` for one path segment (or its beginning: `{model}:stream`), a final `/*` for the rest. Required, unless there is a `preset`.", example: "\"POST /api/chat\"";
    "when", when, Unset<When>,
        "What the request's head must have as well: `header:NAME` or `header:NAME=VALUE`. A `send` and a `steer` are requests without headers.", example: "\"header:accept=text/event-stream\"";
    "preset", preset, Unset<PresetName>,
        "A backend that is known: without a `match` this one table stands for all routes of its family, with `match` for one route with the options of the family's route of that method (but its `resume`). What else is written beside it counts for all of them.", example: "\"ai-sdk\"";
    "base", base, Unset<Base>,
        "The path below which the preset's family stands. Default: its standard paths.", example: "\"/api/my-chat\"";
    "intercept", intercept, Unset<YesNo>,
        "Record its streams whatever the method, or do not. Default: as the `intercept` above says.", example: "true";
    "record", record, YesNo,
        "`false` keeps its streams out of the log, whatever else says otherwise.";
    "session", session, ListOf<Rule>,
        "Where the session's name is found; the first rule that yields one wins: `header:NAME`, `query:NAME`, `cookie:NAME`, `path:/threads/{session}/*`, `json:/pointer` (request body), `response-header:NAME`, `event-json:/pointer` (the answer's first events), `answer-json:/pointer` (an answer that is JSON, to a request whose stream another request gets). Without a rule every request is a session of its own.";
    "ids", ids, OneOf<crate::config::Ids>,
        "Whether direct callers get resumable SSE ids. `auto`: only GET requests that accept text/event-stream and whose upstream sets no ids of its own.";
    "keepalive", keepalive, KeepaliveEvery,
        "How often an SSE caller gets a comment line (`: keep-alive`, between events), so that nothing on the way takes a silent connection for dead. `auto`: every 15 s where it has our ids. Gemini's own clients fail at any comment.";
    "resume", resume, ListOf<Pattern>,
        "Requests that we answer with the active run of this route in the session that `{session}` names, from its start (or after `?after=OFFSET`), and with 204 where there is none: such as `GET /api/chat/{session}/stream`. They never reach the upstream.";
    "join", join, YesNo,
        "Whether a request whose session has an active run of this route gets that run, from its start, instead of calling the upstream again.";
    "repeats", repeats, OneOf<crate::config::Repeats>,
        "What becomes of a request that repeats another, by its `Idempotency-Key` or because its client says that it tries again (`x-stainless-retry-count`): it gets the run of the first (`join`), or the upstream is called again (`forward`).";
    "input", input, Unset<BodyPointer>,
        "Where the user's message stands in the request body; it is kept in the session for other devices. In a pointer `-1` is the last element of an array, `-1?role=user` the last if its `role` is `user`. Default: nothing of the request is kept.", example: "\"json:/message\"";
    "send", send, Unset<YesNo>,
        "Whether clients may begin runs here with `send`. Default: where its streams are recorded.", example: "true";
    "on_busy", on_busy, OneOf<crate::session::BusyPolicy>,
        "What a `send` does while the route has an active run: begin beside it, wait, cancel it first, or be refused. A `send` may say otherwise.";
    "steer", steer, Unset<Steering>,
        "What a `steer` does: begin when the run has ended (`queue`), cancel the run and begin (`interrupt`), call the upstream (`forward POST /runs/{run_id}/input`), or nothing (`reject`). Default: the follow-up call of its `dialect`, else `queue`.", example: "\"queue\"";
    "cancel", cancel, Unset<Cancelling>,
        "What to tell the upstream when a run is cancelled, beside closing its connection: `off` for nothing. `{session}` and the names of `values` are filled in. Default: the call of its `dialect`, where that has one.", example: "\"POST /threads/{session}/cancel\"";
    "cancel_body", cancel_body, Unset<JsonText>,
        "The body of that call, JSON: a text `\"{name}\"` in it stands for the value of that name, whatever its type.", example: "'{\"user\": \"{session}\"}'";
    "values", values, ListOf<ValueOfEvents>,
        "What `cancel` and `steer` need of a run's events: `NAME=json:/pointer` into their data; the first event that has it counts. What the `dialect` finds by itself need not be named.";
    "credential", credential, Unset<CredentialPlace>,
        "The value of `Authorization` for runs that waited in the queue: their client may be gone, and its own credentials are never stored. Whoever may `send` to the route acts with it, whatever credentials of its own it has: set it only where the network in front decides who that is. Without it a client with credentials cannot queue. Not for a listener that other machines reach without authentication.", example: "\"env:AGENT_AUTHORIZATION\"";
    "on_disconnect", on_disconnect, OneOf<crate::config::OnDisconnect>,
        "What it means that a run's caller has left before the end: nothing (`continue`), or that the run is to end (`cancel`), for clients whose only way to stop an answer is to close the connection. Subscribers of the session are not callers; who comes back with `Last-Event-ID` or the same `Idempotency-Key` is.";
    "grace", grace, Delay,
        "`on_disconnect = \"cancel\"`: how long the run waits for a caller to come back before it is cancelled. Clients that reconnect by themselves need some seconds (an EventSource waits 3 to 5); without a way to come back it only costs tokens.";
    "dialect", dialect, ListOf<DialectName>,
        "The wire format of its answers, by which their end, failure and token counts are known: one of `sidestream dialects`, or a `[[dialect]]`; of several the first whose framing an answer has. Empty: each answer shows it.";
    "stall", stall, Span,
        "Silence of the upstream after which the run is said to be stalled.";
    "stall_limit", stall_limit, Span,
        "Silence of the upstream after which the run has failed.";
};

/// Options whose names are settled and that come with a later version.
pub(super) const LATER: &[&str] = &["store.encoding", "auth.keys", "log.payloads"];

/// The option with this path or short name.
pub(super) fn find<C>(options: &'static [Opt<C>], name: &str) -> Option<&'static Opt<C>> {
    options.iter().find(|option| option.path == name || option.short == Some(name))
}

/// What to say of a name that no option has; `shown` is how the operator wrote it.
pub(super) fn unknown<C>(options: &'static [Opt<C>], later: &[&str], name: &str, shown: &str) -> String {
    if later.iter().any(|known| name == *known || name.strip_prefix(known).is_some_and(|rest| rest.starts_with('.'))) {
        return format!("`{shown}` is not in this version; it comes with a later one");
    }
    match nearest(options, name) {
        Some(near) => format!("unknown key `{shown}`; did you mean `{near}`?"),
        None => format!("unknown key `{shown}`; `sidestream default-config` lists every key"),
    }
}

/// The option whose name is nearest to `name`, if any is near: as a whole, or by its last part.
fn nearest<C>(options: &'static [Opt<C>], name: &str) -> Option<&'static str> {
    let key = name.rsplit('.').next().unwrap_or(name);
    let distance = |option: &Opt<C>| {
        let whole = strsim::damerau_levenshtein(name, option.path);
        // Another section's key is a worse guess than a misspelling.
        let last = strsim::damerau_levenshtein(key, option.key()) + 1;
        let misplaced = if last <= 1 + key.len() / 4 { last } else { usize::MAX };
        whole.min(misplaced)
    };
    let near = options.iter().min_by_key(|option| distance(option))?;
    (distance(near) <= 1 + name.len() / 4).then_some(near.path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_told_its_nearest_neighbour() {
        for (wrong, right) in [
            ("upstream.conect_timeout", "upstream.connect_timeout"),
            ("connect_timeout", "upstream.connect_timeout"),
            ("lisen", "listen"),
            ("limits.socket", "limits.sockets"),
            ("server.ttl", "store.ttl"),
        ] {
            assert_eq!(nearest(OPTIONS, wrong), Some(right), "{wrong}");
        }
        assert_eq!(nearest(OPTIONS, "kubernetes.namespace"), None);
        assert_eq!(nearest(ROUTE_OPTIONS, "sesion"), Some("session"));
    }

    #[test]
    fn a_name_that_is_settled_for_later_says_so() {
        for name in ["store.encoding", "log.payloads"] {
            assert!(unknown(OPTIONS, LATER, name, name).contains("later"), "{name}");
        }
        assert!(unknown(OPTIONS, LATER, "store.encodings", "store.encodings").contains("unknown key"));
    }

    #[test]
    fn every_option_stands_in_its_section_and_names_are_unique() {
        let known: Vec<_> = SECTIONS.iter().map(|section| section.name).collect();
        let mut last = 0;
        for option in OPTIONS {
            let at = known.iter().position(|name| *name == option.section()).expect(option.path);
            assert!(at >= last, "{} stands out of order", option.path);
            last = at;
            let same =
                OPTIONS.iter().filter(|other| other.path == option.path || other.variable() == option.variable());
            assert_eq!(same.count(), 1, "{}", option.path);
        }
    }

    #[test]
    fn no_later_name_is_an_option_of_this_version() {
        assert!(LATER.iter().all(|name| find(OPTIONS, name).is_none()));
    }
}
