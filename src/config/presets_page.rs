//! The page `docs/presets.md`, from the presets themselves.

use std::fmt::Write;

use super::presets::{preset, presets, standard_paths};

const INTRO: &str = "\
# Presets

<!-- Written by `UPDATE_DOCS=1 cargo test --test cli` from src/config/presets/*.toml; do not edit. -->

A preset is what has to be written for a backend that is known: which of its requests stream, how their session is found, what
the user said, the wire format, how a run is cancelled, what a page asks for when it is loaded again. It sets options of
[routes](configuration.md#route) and nothing else, and it never changes what the direct caller of an answer gets.

- Without a file: `--preset ai-sdk`, or `SIDESTREAM_PRESET=ai-sdk,openai`. In the file, at its top: `preset = [\"ai-sdk\"]`. The family
  stands at its standard paths, behind every `[[route]]` of the file: the first route that matches wins, so a route of your own
  goes before the preset's. `generic` matches every path: name it last.
- Below another path, or with options of your own, which count for the whole family:

  ```toml
  [[route]]
  preset = \"ai-sdk\"
  base = \"/api/my-chat\"
  stall_limit = \"5m\"
  ```

- One route with the options of a preset: `match = \"POST /ask\"` beside `preset` (without the preset's `resume`, which
  stands at its standard path).
- `sidestream presets` lists them, `sidestream presets NAME --base PATH` prints the routes, to copy and change.

What fits no rule of a preset gets a session of its own; the request header `Sidestream-Session` comes before every rule. A
preset on a route whose answers are something else: they pass through as they are, and where their first events show another
dialect, the log says so once.

**Bare model APIs** (`openai`, `anthropic`, `gemini`, `ollama`): the wire names no conversation, and closing the connection is the
only cancel that their clients have. By default a run goes on when its caller leaves, so that it can be resumed. Where nobody comes back,
let a disconnect be a cancel, with time for those who reconnect:

```toml
[[route]]
preset = \"openai\"
on_disconnect = \"cancel\"
grace = \"10s\"
```

| preset | for | stands at |
|---|---|---|
";

/// The page.
pub fn presets_page() -> String {
    let mut text = INTRO.to_owned();
    for (name, about) in presets() {
        let paths: Vec<_> = standard_paths(name).iter().map(|path| format!("`{path}`")).collect();
        let _ = writeln!(text, "| [`{name}`](#{name}) | {about} | {} |", paths.join(", "));
    }
    for (name, about) in presets() {
        let first = standard_paths(name).into_iter().next().unwrap_or_default();
        let routes = preset(name, Some(&first)).unwrap_or_default();
        let _ = write!(text, "\n## {name}\n\n{about}.\n\n```toml\n{routes}```\n");
    }
    text
}
