//! Child processes of a benchmark: pinned to a core, ended with it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// How long a process may take until it says that it is ready.
const START: Duration = Duration::from_secs(15);

/// A running child process. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    name: &'static str,
    says: PathBuf,
}

impl Process {
    /// Starts `program`, on `core` where one is given. What it says goes to a file in `folder`.
    pub(crate) fn start(
        name: &'static str,
        program: &Path,
        arguments: &[String],
        core: Option<usize>,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let mut command = match core {
            Some(core) => {
                let mut command = Command::new("taskset");
                command.arg("-c").arg(core.to_string()).arg(program);
                command
            }
            None => Command::new(program),
        };
        let says = folder.join(format!("{name}.log"));
        let output = File::create(&says)?;
        command.args(arguments).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        // Settings of whoever runs the benchmark are not part of it.
        for (variable, _) in std::env::vars().filter(|(variable, _)| variable.starts_with("SIDESTREAM_")) {
            command.env_remove(variable);
        }
        let child = command.spawn().with_context(|| format!("cannot start {name} ({})", program.display()))?;
        Ok(Process { child, name, says })
    }

    /// Its process id; `taskset` becomes the program it starts.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it, as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself, which is as well.
        let _ = self.child.kill();
    }

    /// Waits until it has said something from which `find` takes a value.
    pub(crate) async fn wait_for<T>(&mut self, find: impl Fn(&str) -> Option<T>) -> anyhow::Result<T> {
        let begun = Instant::now();
        loop {
            let said = fs::read_to_string(&self.says)?;
            if let Some(value) = find(&said) {
                return Ok(value);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended ({status}) and said:\n{said}", self.name);
            }
            if begun.elapsed() > START {
                bail!("{} was not ready in time and said:\n{said}", self.name);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing it could still write is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
